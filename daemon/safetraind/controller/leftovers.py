"""Leftovers of a killed daemon below `runs/`: numbers that are taken, and ephemeral workers."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import time
from pathlib import Path

import psutil

from safetrain_shared.paths import Home, RunFolder
from safetraind.processes.locks import is_held
from safetraind.processes.supervisor import kill_workers, workers_of

_ORPHAN_SECONDS = 300.0  # for the step in progress and its checkpoint
_RUN_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_EPHEMERAL = re.compile(r"[a-z]+-\d+-\d+-\d+")  # as `processes.ephemeral` names them


def highest_run(runs: Path) -> int:
    """Return the highest job number that has a run folder; 0 where there is none."""
    return max((int(p.name) for p in runs.iterdir() if _RUN_NUMBER.fullmatch(p.name)), default=0)


async def end_ephemeral_workers(home: Home) -> None:
    """End the ephemeral workers of a daemon that was killed, and remove their folders."""
    for folder in (home.root / "runs").iterdir():
        if not _EPHEMERAL.fullmatch(folder.name) or not folder.is_dir():
            continue  # a job's, or something that we did not make
        run = RunFolder(folder)
        with contextlib.suppress(OSError):  # no lock that could be held
            while is_held(run.lock):  # their keepers end them, unless the keeper was killed too
                kill_workers(run)
                await asyncio.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)


async def end_orphan(run: RunFolder) -> None:
    """End the training of a run folder that was deleted.

    It ends at its next step, with a checkpoint, or is killed where that takes too long. Its lock
    file is gone too, so its processes are searched for.
    """
    for process in workers_of(run):
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while workers_of(run):
        if time.monotonic() > deadline:
            kill_workers(run)
        await asyncio.sleep(0.2)

"""What a daemon that has stopped, and all that worked for it, may not leave: looked for by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from safetrain_shared.paths import Home
from safetraind.processes.locks import is_held
from safetraind.storage.folder_lock import try_lock_folder
from tests.harness import DaemonProcess, wait_for

_EPHEMERAL = re.compile(r"[a-z]+-\d+-\d+-\d+|serve")
_TEMPORARY = re.compile(r"\..*\.partial|.*\.new|\.adding|\.removed-.*")


def left_over(daemon: DaemonProcess, *outputs: Path) -> list[str]:
    """Processes, held locks, folders of ephemeral workers and temporary files, by their names.

    The daemon has been stopped; its last workers may take a moment to be gone.
    """
    try:
        wait_for(lambda: not daemon.processes(), 10)
    except AssertionError:
        pass  # they are named
    found = [f"process {process.pid}" for process in daemon.processes()]
    found += [f"locked {path}" for path in _locked(daemon.home, outputs)]
    home = daemon.home.root
    found += [str(run) for run in (home / "runs").iterdir() if _EPHEMERAL.fullmatch(run.name)]
    for folder in (home, *outputs):
        found += [str(path) for path in folder.rglob("*") if _TEMPORARY.fullmatch(path.name)]
    return found


def _locked(home: Home, outputs: tuple[Path, ...]) -> Iterator[Path]:
    locks = [home.lock, home.lease("cpu"), *home.root.glob("runs/*/run.lock")]
    yield from (lock for lock in locks if is_held(lock))
    for output in outputs:
        descriptor = try_lock_folder(output)
        if descriptor is None:
            yield output
        else:
            os.close(descriptor)

"""Runs an ephemeral worker (probe, inspect, …) to its end: a request in, a result out.

What a model's folder brings, its chat template above all, is as untrusted as data: it may loop or
grow for ever. So each role has a limit in time and in memory, at which the worker is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from safetrain_shared.codec import to_plain
from safetrain_shared.paths import Home, RunFolder, private
from safetraind.processes.locks import try_lock
from safetraind.processes.supervisor import Supervisor, Worker, write_launch
from safetraind.storage import documents
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.storage.durable import NotAFile, open_file, read_file, read_json, write_json
from safetraind.storage.run_folder import KeeperNote
from safetraind.worker_messages.role import Line, Result, Role
from safetraind.worker_messages.worker_result import WorkerResult

_PROGRESS_SECONDS = 0.2
_LOOKS = 5  # at its progress, between two at its memory


@dataclass(frozen=True, slots=True)
class Limit:
    """Limits of a worker. `quiet_seconds`: the longest time without output. `memory`: bytes, 0: all
    of the machine's.
    """

    quiet_seconds: float
    memory: int = 0


# Generous: an honest worker stays far below. An inspection holds a tokenizer, 16 MB of lines and
# the indexes of `duplicate_index`; a probe may compile and run one long step.
LIMITS: Mapping[str, Limit] = {
    "inspect": Limit(120.0, 4 << 30),
    "preview": Limit(120.0, 4 << 30),
    "probe": Limit(1800.0),
    "export": Limit(3600.0),
    "fetch": Limit(900.0, 4 << 30),
}
_ANY = Limit(3600.0)
_number = itertools.count(1)

Note = Callable[[bytes], None]


class EphemeralWorkers:
    """Starts ephemeral workers; those that need the GPU share the one lease it was given."""

    def __init__(self, home: Home, supervisor: Supervisor, lease: int | None = None) -> None:
        """`lease`: a descriptor that holds the GPU lease; None where it cannot be had."""
        self._home = home
        self._supervisor = supervisor
        self._lease = lease

    def lend(self, lease: int | None) -> None:
        """Set the lease for workers started from now on; None takes it back."""
        self._lease = lease

    @property
    def has_lease(self) -> bool:
        """Whether workers that need the GPU can be run."""
        return self._lease is not None

    async def run_worker(
        self,
        role: Role[Line, Result],
        request: Any,
        *,
        lease: bool,
        on_progress: Callable[[Line], None] | None = None,
    ) -> WorkerResult[Result]:
        """Run a worker to its end. `on_progress` takes its lines.

        Cancelling this call kills it, and so does its limit. Raises OSError where it can't be
        started.
        """
        run = fresh_folder(self._home, role.name)
        worker: Worker | None = None
        note = None if on_progress is None else partial(_note, role, on_progress)
        try:
            write_json(run.root / f"{role.name}_request.json", to_plain(request))
            write_launch(run, role.name, 1, 0)
            worker = await self._start(run, role.name, lease)
            limit = await _accompany(run, role.name, worker, note)
            answer = None if limit else role.read_result(read_json(run.probe))
            exit_note = documents.read(run.exit, KeeperNote) or KeeperNote()
            return WorkerResult(exit_note, answer, _tail(run.log), limit)
        finally:
            if worker is not None:
                await _end(worker)
            shutil.rmtree(run.root, ignore_errors=True)

    async def _start(self, run: RunFolder, role: str, lease: bool) -> Worker:
        lock = try_lock(run.lock)
        assert lock is not None  # the folder is new
        try:
            held = self._lease if lease else None
            return await self._supervisor.start(run, role, lock=lock, lease=held)
        finally:
            os.close(lock)


def fresh_folder(home: Home, role: str) -> RunFolder:
    """Return the new run folder of an ephemeral worker. Raises OSError."""
    name = f"{role}-{os.getpid()}-{next(_number)}-{time.time_ns()}"
    run = home.run(name)
    private(run.root.parent)
    private(run.root)
    return run


def _note(role: Role[Line, Result], on_progress: Callable[[Line], None], text: bytes) -> None:
    with contextlib.suppress(ValueError):
        on_progress(role.read_line(json.loads(text)))


async def _accompany(run: RunFolder, role: str, worker: Worker, note: Note | None) -> str:
    """Pass the worker's lines on until it ends. Kill it at a limit, and return that limit."""
    path = run.partial
    limit = LIMITS.get(role, _ANY)
    ended = asyncio.ensure_future(worker.ended())
    offset, written, since, looks = 0, 0, time.monotonic(), 0
    try:
        while True:
            done, _ = await asyncio.wait({ended}, timeout=_PROGRESS_SECONDS)
            offset = _new_lines(path, offset, note)
            if done:
                return ""
            size = _size(path)
            if size != written:
                written, since = size, time.monotonic()
            looks += 1
            heavy = looks % _LOOKS == 0 and await _cost(worker) > _most(limit)
            if heavy or time.monotonic() - since > limit.quiet_seconds:
                worker.kill()
                await ended
                return "memory" if heavy else "time"
    finally:
        ended.cancel()


async def _cost(worker: Worker) -> int:
    return await bounded(worker.run.root, worker.footprint, seconds=SLOW_SECONDS)


def _most(limit: Limit) -> int:
    return limit.memory or psutil.virtual_memory().total


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _new_lines(path: Path, offset: int, note: Note | None) -> int:
    """Pass on the complete lines after byte `offset`. Return the offset of the next reading."""
    if note is None:
        return offset
    try:
        descriptor = open_file(path, os.O_RDONLY)
    except (FileNotFoundError, NotAFile):
        return offset
    with os.fdopen(descriptor, "rb") as file:
        file.seek(offset)
        while (line := file.readline()).endswith(b"\n"):
            offset += len(line)
            note(line)
    return offset


async def _end(worker: Worker) -> None:
    """Kill the worker if it still lives, and wait for its end, even if this call is cancelled."""
    worker.kill()
    await asyncio.shield(worker.ended())


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError):
        return read_file(path).decode(errors="replace")[-2000:]
    return ""

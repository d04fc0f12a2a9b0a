"""Kernel locks (flock) on files and folders, which child processes inherit.

A lock belongs to an open file, not to a process: every process that inherits the descriptor holds
it too, and it is free once the last of them has died. No pid is ever trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from safetrain_shared.errors import Busy
from safetrain_shared.paths import RunFolder
from safetraind.storage.bounded_read import bounded
from safetraind.storage.folder_lock import try_lock_folder
from safetraind.storage.run_folder import set_odd_aside

_PATIENCE_SECONDS = 0.5
_PATIENCE = 25  # tries


def try_lock(path: Path) -> int | None:
    """Lock the file `path`, or a folder of that name. Raises OSError.

    Return a close-on-exec descriptor that holds the lock; None where another process holds it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except IsADirectoryError:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def lock_run(run: RunFolder) -> int:
    """Lock a job's run, as `try_lock` does, after setting aside what is no file in its folder.

    Raises Busy while its worker lives, OSError.
    """
    set_odd_aside(run.root)
    lock = try_lock(run.lock)
    if lock is None:
        raise Busy("job.live", id=run.root.name)
    return lock


def is_held(path: Path) -> bool:
    """Return whether a living process holds the lock of `path`. Raises OSError."""
    if not path.exists():
        return False
    descriptor = try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


async def lock_folder_soon(folder: Path) -> int | None:
    """Call `try_lock_folder` for half a second at most; None where another process holds the lock.

    Each call has a limit in time, since the folder may be on a dead mount. Raises OSError, NoRoom.
    """

    def give_back(descriptor: int | None) -> None:
        if descriptor is not None:
            os.close(descriptor)

    for _ in range(_PATIENCE):
        descriptor = await bounded(folder, try_lock_folder, folder, late=give_back)
        if descriptor is not None:
            return descriptor
        await asyncio.sleep(_PATIENCE_SECONDS / _PATIENCE)
    return None


@contextlib.asynccontextmanager
async def claimed_soon(folder: Path) -> AsyncIterator[None]:
    """Keep a folder for this process while the block runs; one that is missing is not made.

    Raises Busy where another process, of this home or another, has it; OSError, NoRoom.
    """
    there = await bounded(folder, folder.is_dir)
    descriptor = await lock_folder_soon(folder) if there else None
    if there and descriptor is None:
        raise Busy("folder.busy", path=str(folder))
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


async def retry_briefly(take: Callable[[], int | None]) -> int | None:
    """Call `take` until it returns a descriptor, for half a second at most; None after that.

    A process that dies frees its locks one by one, so one may be held for an instant longer than
    the run's lock.
    """
    for _ in range(_PATIENCE):
        descriptor = take()  # not in a thread: a call that is cancelled would leave it held
        if descriptor is not None:
            return descriptor
        await asyncio.sleep(_PATIENCE_SECONDS / _PATIENCE)
    return take()

"""Kernel locks (flock) that pass from process to process: the daemon's, a run's, the GPU lease.

A lock belongs to an open file, not to a process: whoever inherits the descriptor holds it too, and
it is free once the last of them has died. No pid is ever trusted.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path

from safetrain_shared.paths import private
from safetraind.storage.bounded_read import bounded

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 0.5
_PATIENCE = 25  # tries


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock of `path`, close-on-exec; None where another holds it.

    A folder in the file's place serves as well.
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


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock of `path`."""
    if not path.exists():
        return False
    descriptor = try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def try_lock_folder(folder: Path) -> int | None:
    """A descriptor that holds the lock of a folder itself, made where it is missing, so that no
    file is left there; None where another holds it. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:  # a network disk may know no locks of folders
        log.warning("%s cannot be locked: %s", folder, error)
    return descriptor


class Lease:
    """The right to use the GPU. Probing, training and answering each hold it."""

    def __init__(self, path: Path) -> None:
        """`path`: the lock file, the same for all who share the device."""
        private(path.parent, parents=True)
        self._path = path

    @property
    def held(self) -> bool:
        """Whether anybody has it, of whatever home."""
        return is_held(self._path)

    def try_take(self) -> int | None:
        """A descriptor that holds the lease; None where another has it."""
        return try_lock(self._path)

    async def take_soon(self) -> int | None:
        """`try_take` with a moment's patience."""
        return await soon(self.try_take)


async def lock_folder_soon(folder: Path) -> int | None:
    """`try_lock_folder` with a moment's patience, and a limit in time: it may be on a dead mount.

    Raises OSError, NoRoom.
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


async def soon(take: Callable[[], int | None]) -> int | None:
    """What `take` returns, with a moment's patience: a process that dies lets go of its locks one
    by one, so one may be held for an instant longer than the run's lock.
    """
    for _ in range(_PATIENCE):
        descriptor = take()  # not in a thread: a call that is cancelled would leave it held
        if descriptor is not None:
            return descriptor
        await asyncio.sleep(_PATIENCE_SECONDS / _PATIENCE)
    return take()

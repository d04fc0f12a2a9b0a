"""A kernel lock (flock) on a folder itself, so that no lock file is left in it.

It keeps every other process that asks for it away, those of other homes too.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetrain_shared.errors import Busy
from safetraind.storage.durable import empty

log = logging.getLogger(__name__)


def try_lock_folder(folder: Path) -> int | None:
    """Lock the folder; a missing one is made. Raises OSError.

    Return a close-on-exec descriptor that holds the lock; None where another process holds it.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:  # a network disk may know no locks of folders
            log.warning("%s cannot be locked: %s", folder, error)
        if _is_at(folder, descriptor):
            return descriptor
        os.close(descriptor)  # removed or renamed in between: another has the name now


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep a folder for this process while the block runs.

    Raises Busy where another process has it, OSError.
    """
    descriptor = try_lock_folder(folder)
    if descriptor is None:
        raise Busy("folder.busy", path=str(folder))
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def temporary(folder: Path) -> Iterator[None]:
    """Keep an empty folder for this process while the block runs, then remove what is left of it.

    What a killed process left there is removed first. Raises Busy, OSError.
    """
    descriptor = try_lock_folder(folder)
    if descriptor is None:
        raise Busy("folder.busy", path=str(folder))
    try:
        empty(folder)
        yield
    finally:
        if _is_at(folder, descriptor):
            shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def remove_unclaimed(folder: Path) -> None:
    """Remove a temporary folder, unless a process has claimed it."""
    with contextlib.suppress(OSError, Busy):
        if folder.is_dir():
            with temporary(folder):
                pass


def _is_at(folder: Path, descriptor: int) -> bool:
    """Return whether the open folder is still at that path."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    return False

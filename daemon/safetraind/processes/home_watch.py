"""Detects the loss of a living daemon's home: of its lock, of its database, or of all of it."""

from __future__ import annotations

import contextlib
import os
from enum import StrEnum
from pathlib import Path

from safetrain_shared.errors import Busy
from safetrain_shared.paths import Home
from safetraind.processes.locks import try_lock

Identity = tuple[int, int]  # device and inode


class Loss(StrEnum):
    """The part of the home that is gone, or that belongs to another daemon."""

    HOME = "home"
    LOCK = "lock"
    DATABASE = "database"


class HomeWatch:
    """The files of the home as the daemon found or made them."""

    def __init__(self, home: Home) -> None:
        """Note the files' identities. The daemon holds its lock and has its database open."""
        self._home = home
        self._root = identity(home.root)
        self._known: dict[Loss, Identity | None] = {}
        for loss in (Loss.LOCK, Loss.DATABASE):
            self.renewed(loss)

    def renewed(self, loss: Loss) -> None:
        """Note the identity of a file that the daemon has just made."""
        self._known[loss] = identity(self._path(loss))

    def look(self) -> Loss | None:
        """Return the gravest loss; None where everything is there.

        A home is gone where its folder is, and where none of its files is left in it, as in the
        middle of a deletion.
        """
        if identity(self._home.root) != self._root:
            return Loss.HOME
        lost = [loss for loss in self._known if identity(self._path(loss)) != self._known[loss]]
        if Loss.LOCK in lost and Loss.DATABASE in lost and not (self._home.root / "runs").exists():
            return Loss.HOME
        return next(iter(lost), None)

    def _path(self, loss: Loss) -> Path:
        return self._home.lock if loss is Loss.LOCK else self._home.database


class HomeLock:
    """The lock (flock) of the one daemon of a home."""

    def __init__(self, home: Home, descriptor: int) -> None:
        self._home = home
        self._descriptor = descriptor

    def renew(self) -> None:
        """Take the lock anew, after its file was removed. Raises Busy where another was quicker."""
        descriptor = try_lock(self._home.lock)
        if descriptor is None:
            raise Busy("home.taken", home=str(self._home.root))
        write_pid(descriptor)
        self.close()
        self._descriptor = descriptor

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


def write_pid(lock: int) -> None:
    """Write this process's id into the file of a lock that it holds, for people."""
    with contextlib.suppress(OSError):  # a full disk, or a folder
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)


def identity(path: Path) -> Identity | None:
    """Return device and inode of the file at `path`, without following links; None where there is
    none.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino

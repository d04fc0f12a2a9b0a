"""Durable files: replaced atomically, and brought to the disk itself."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

# Of the files of a run, the largest is a plan, of some kilobytes; a tokenizer.json has a few MB.
MOST_JSON_BYTES = 64 << 20


def write_text(path: Path, text: str, *, synced: bool = True) -> None:
    """Put `text` at `path` by a rename, so that a reader sees the old content or the new.

    It outlives a power cut once this returned, unless `synced` is False. Raises OSError, e.g. on a
    full disk; the old content is then untouched.
    """
    new = path.with_name(f"{path.name}.new")
    descriptor = _opened(new)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if synced:
                sync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    if synced:
        sync_folder(path.parent)


def _opened(new: Path) -> int:
    """Open a temporary file of ours for writing, in place of whatever is left at its path."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return open_file(new, flags)
    except (IsADirectoryError, PermissionError, NotAFile):  # the name is ours, whoever took it
        clear(new)
        return open_file(new, flags)


def clear(path: Path) -> None:
    """Remove what has a name that is ours: a file, or a folder with all in it."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # of a folder: EISDIR, on macOS EPERM
        shutil.rmtree(path, ignore_errors=True)


def empty(folder: Path) -> None:
    """Remove all that is in a folder of ours. Raises OSError where it cannot be listed."""
    for left in folder.iterdir():
        clear(left)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value by `write_text`. Raises OSError."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Return the JSON value at `path`; None where there is none that can be read.

    That is so for anything but a regular file of at most `MOST_JSON_BYTES`, and for JSON nested
    deeper than Python's parser goes.
    """
    try:
        return json.loads(read_file(path).decode())
    except (OSError, ValueError, RecursionError):
        return None


def read_file(path: Path) -> bytes:
    """Return the content of a regular file of at most `MOST_JSON_BYTES`.

    Raises OSError for anything else.
    """
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        if os.fstat(file.fileno()).st_size > MOST_JSON_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read()


class NotAFile(OSError):
    """What stands at a path is a FIFO, a socket or a device."""


def open_file(path: Path, flags: int) -> int:
    """Open a regular file, close-on-exec; one that `flags` create is the user's alone.

    Raises IsADirectoryError, NotAFile for a FIFO, which would wait for its other end, and for a
    device, which may never end; OSError.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a FIFO that nobody reads, or a socket
            raise NotAFile(errno.EINVAL, os.strerror(errno.EINVAL), str(path)) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise NotAFile(errno.EINVAL, os.strerror(errno.EINVAL), str(path))


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object at `path`; an empty one where there is none that can be read."""
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def sync(descriptor: int) -> None:
    """Sync a file to the disk, on macOS through the drive's cache."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError:
            pass  # network volumes know only fsync
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    sync_path(folder)


def sync_path(path: Path) -> None:
    """Sync a file or folder to the disk by its name. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)

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


def write_text(path: Path, text: str) -> None:
    """Put `text` at `path` by a rename, so that a reader sees the old content or the new.

    It outlives a power cut once this returned. Raises OSError, e.g. on a full disk; the old content
    is then untouched.
    """
    new = path.with_name(f"{path.name}.new")
    descriptor = _opened(new)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            sync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _opened(new: Path) -> int:
    """Open a temporary file of ours for writing, in place of whatever is left at its path."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return os.open(new, flags, 0o600)
    except (IsADirectoryError, PermissionError):  # the name is ours, whoever took it
        clear(new)
        return os.open(new, flags, 0o600)


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

    Raises OSError for anything else: a FIFO would wait for a writer, and a device never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_JSON_BYTES:
        os.close(descriptor)
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, os.strerror(number), str(path))
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


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

"""Atomic writes: a reader sees the old file or the new one, never a part."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetrain_shared.errors import NoRoom, NotAllowed


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write each file atomically; missing folders are made.

    Raises NoRoom where the disk is full, NotAllowed where it may not be written.
    """
    for path, content in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom("disk.full", path=str(path)) from None
            raise NotAllowed("path.unwritable", path=str(path), reason=error.strerror) from None


def _replace(path: Path, content: bytes) -> None:
    """Write a temporary file in the same folder and rename it to `path`."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

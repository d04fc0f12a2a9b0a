"""Writes files whole or not at all, so that nobody who opens one sees half of it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetrain_shared.errors import NoRoom, NotAllowed


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Writes each file whole or not at all, making the folders that it needs.

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
    """Through a file beside it, so that nobody who opens `path` sees half of it."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        Path(beside).chmod(0o666 & ~mask)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise

"""The folder that an export writes: whether it is free, its temporary name, space on its disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetrain_shared.errors import Conflict, NoRoom
from safetrain_shared.paths import nearest_existing

_SPARE = 64 << 20
"""Bytes that stay free on the disk."""


def check_free(output: Path) -> None:
    """Raise Conflict unless `output` is not there yet, or an empty folder."""
    if not output.exists():
        return
    if not output.is_dir() or any(output.iterdir()):
        raise Conflict("export.output_taken", path=str(output))


def partial_of(output: Path) -> Path:
    """Return the temporary folder of an export, beside the final one and on the same disk."""
    return output.with_name(f".{output.name}.partial")


def check_room(folder: Path, need: int) -> None:
    """Raise NoRoom unless the disk of `folder`, which may not be there yet, has `need` bytes."""
    there = nearest_existing(folder)
    free = shutil.disk_usage(there).free
    if need + _SPARE > free:
        raise NoRoom("export.no_room", path=str(there), need=need + _SPARE, free=free)

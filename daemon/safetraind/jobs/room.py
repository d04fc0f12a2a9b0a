"""Waits for room on disks that were full."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

_LOOK_SECONDS = 2.0
_ENOUGH_BYTES = 1 << 20  # more than before: somebody is clearing up
_ANYWAY_SECONDS = 60.0  # a quota, or a disk that is full for some writes only


async def found(folders: Sequence[Path]) -> None:
    """Returns once one of the folders' disks has a megabyte more than now, or after a minute."""
    before = [_free(folder) for folder in folders]
    for _ in range(round(_ANYWAY_SECONDS / _LOOK_SECONDS)):
        await asyncio.sleep(_LOOK_SECONDS)
        now = [_free(folder) for folder in folders]
        if any(n >= b + _ENOUGH_BYTES for n, b in zip(now, before, strict=True)):
            return


def _free(folder: Path) -> int:
    """Bytes free where `folder` is, or would be."""
    try:
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        return shutil.disk_usage(nearest).free
    except OSError:
        return 0

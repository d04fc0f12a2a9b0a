"""Waits for room: on disks that were full, in memory that was short."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetraind import host
from safetraind.host import Pressure

_LOOK_SECONDS = 2.0
_ENOUGH_BYTES = 1 << 20  # more than before: somebody is clearing up
_ANYWAY_SECONDS = 60.0  # a quota, or a disk that is full for some writes only
_CALM_LOOKS = 5
_MEMORY_SECONDS = 600.0  # then it is tried again, smaller


async def on_disk(folders: Sequence[Path]) -> bool:
    """Returns once one of the folders' disks has a megabyte more than now, or after a minute.

    Always True: a full disk is no reason for smaller steps.
    """
    before = [_free(folder) for folder in folders]
    for _ in range(round(_ANYWAY_SECONDS / _LOOK_SECONDS)):
        await asyncio.sleep(_LOOK_SECONDS)
        now = [_free(folder) for folder in folders]
        if any(n >= b + _ENOUGH_BYTES for n, b in zip(now, before, strict=True)):
            break
    return True


async def in_memory(needed: int) -> bool:
    """True once `needed` bytes can be had and the system has been calm for ten seconds; False where
    that has not come within ten minutes.
    """
    calm = 0
    for _ in range(round(_MEMORY_SECONDS / _LOOK_SECONDS)):
        await asyncio.sleep(_LOOK_SECONDS)
        facts = await asyncio.to_thread(host.gather)
        at_ease = facts.pressure in (Pressure.NORMAL, Pressure.UNKNOWN)
        calm = calm + 1 if at_ease and facts.memory_available >= needed else 0
        if calm >= _CALM_LOOKS:
            return True
    return False


def _free(folder: Path) -> int:
    """Bytes free where `folder` is, or would be."""
    try:
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        return shutil.disk_usage(nearest).free
    except OSError:
        return 0

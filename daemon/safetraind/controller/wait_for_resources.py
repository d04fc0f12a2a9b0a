"""Waits for the resources of a held job: room on disks, memory, or the end of the GPU's rest."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetrain_shared.errors import NoRoom
from safetrain_shared.paths import nearest_existing
from safetraind import host
from safetraind.host import HostFacts, Pressure
from safetraind.host.awake import stay_awake
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded

_LOOK_SECONDS = 2.0
_ENOUGH_BYTES = 1 << 20  # more than before: somebody is clearing up
_ANYWAY_SECONDS = 60.0  # a quota, or a disk that is full for some writes only
_MEMORY_SECONDS = 600.0  # then it is tried again all the same
_CALM_LOOKS = 5
# At a constant warning level, which is usual on a small Mac, calm means that no swap is added.
_STEADY_LOOKS = 30


async def on_disk(folders: Sequence[Path]) -> None:
    """Wait until the disk of one of the folders has a megabyte more than now, a minute at most."""
    before = await _all_free(folders)
    for _ in range(round(_ANYWAY_SECONDS / _LOOK_SECONDS)):
        await asyncio.sleep(_LOOK_SECONDS)
        now = await _all_free(folders)
        if any(n >= b + _ENOUGH_BYTES for n, b in zip(now, before, strict=True)):
            break


async def in_memory(needed: int) -> None:
    """Wait until `needed` bytes are available and the pressure is over, ten minutes at most."""
    calm = Calm(needed)
    for _ in range(round(_MEMORY_SECONDS / _LOOK_SECONDS)):
        await asyncio.sleep(_LOOK_SECONDS)
        if calm.look(await bounded("/", host.gather, seconds=SLOW_SECONDS)):
            break


async def for_the_next_segment(seconds: float) -> None:
    """Wait `seconds`, and keep the machine awake meanwhile."""
    with stay_awake(seconds):
        await asyncio.sleep(seconds)


class Calm:
    """Watches whether the memory pressure has been over for long enough, reading by reading."""

    def __init__(self, needed: int) -> None:
        """`needed`: bytes that must be available."""
        self._needed = needed
        self._calm = self._steady = 0
        self._swap = 0

    def look(self, machine: HostFacts) -> bool:
        """Take a reading of the machine.

        Return True after ten seconds without pressure, or after a minute at the warning level in
        which no swap was added.
        """
        enough = machine.memory_available >= self._needed
        at_ease = machine.pressure in (Pressure.NORMAL, Pressure.UNKNOWN)
        steady = at_ease or (
            machine.pressure is Pressure.WARNING and machine.swap_used <= self._swap
        )
        self._calm = self._calm + 1 if enough and at_ease else 0
        self._steady = self._steady + 1 if enough and steady else 0
        self._swap = machine.swap_used
        return self._calm >= _CALM_LOOKS or self._steady >= _STEADY_LOOKS


async def _all_free(folders: Sequence[Path]) -> list[int]:
    return [await _free(folder) for folder in folders]


async def _free(folder: Path) -> int:
    """Return the bytes free where `folder` is, or would be; 0 where its disk does not say."""

    def free() -> int:
        return shutil.disk_usage(nearest_existing(folder)).free

    try:
        return await bounded(folder, free)
    except (OSError, NoRoom):
        return 0

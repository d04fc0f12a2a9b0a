"""The GPU lease: one kernel lock (`locks`) for all processes that use the device."""

from __future__ import annotations

from pathlib import Path

from safetrain_shared.paths import private
from safetraind.processes.locks import is_held, retry_briefly, try_lock


class Lease:
    """The right to use the GPU.

    The workers `probe`, `pilot`, `train`, `rank`, `serve`, `evaluate` and `export` each hold it.
    """

    def __init__(self, path: Path) -> None:
        """`path`: the lock file, the same for all who share the device."""
        private(path.parent, parents=True)
        self._path = path

    @property
    def held(self) -> bool:
        """Whether any process holds it, of this home or another."""
        return is_held(self._path)

    def try_take(self) -> int | None:
        """Return a descriptor that holds the lease; None where another process holds it."""
        return try_lock(self._path)

    async def take_soon(self) -> int | None:
        """Call `try_take` for half a second at most; None where another process holds the lease."""
        return await retry_briefly(self.try_take)

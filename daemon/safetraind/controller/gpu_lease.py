"""The GPU lease as the daemon holds it: for the job whose turn it is, and lent for a while."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Protocol

from safetraind.controller.retries import AGAIN_SECONDS
from safetraind.processes.lease import Lease

log = logging.getLogger(__name__)

LEASE_SECONDS = 0.25  # flock cannot be awaited: another holder is asked again


class LeaseBorrower(Protocol):
    """The inference server, which holds the lease until a job needs it."""

    async def leave(self) -> None:
        """End the borrower and free the lease."""


class GpuLease:
    """The lease and its borrowers. `descriptor` holds it for the job whose turn it is."""

    def __init__(self, lease: Lease) -> None:
        self.borrowers: list[LeaseBorrower] = []
        self.descriptor: int | None = None
        self._lease = lease

    @property
    def held(self) -> bool:
        """Whether any process holds the lease, of this home or another."""
        return self._lease.held

    async def dismiss_borrowers(self) -> None:
        """End all borrowers."""
        for borrower in self.borrowers:
            await borrower.leave()

    async def take(self, *, wait: bool) -> int | None:
        """Return a descriptor that holds the lease, once the borrowers have left. The caller closes
        it.

        None where another process has it, unless `wait`. Raises OSError, unless `wait`.
        """
        while True:
            await self.dismiss_borrowers()
            try:
                descriptor = await self._lease.take_soon()
            except OSError as error:
                if not wait:
                    raise
                log.warning("the lease cannot be asked for: %s; trying again", error)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if descriptor is not None or not wait:
                return descriptor
            await asyncio.sleep(LEASE_SECONDS)

    def drop(self) -> None:
        """Give back what `descriptor` holds."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

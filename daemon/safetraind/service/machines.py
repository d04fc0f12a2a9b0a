"""`safetrain.v1.Machines`: lends this machine's GPU to a training that another daemon leads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from safetrain_proto.v1 import machines_pb2, machines_pb2_grpc
from safetrain_proto.v1.jobs_pb2 import LentRank
from safetraind.controller.controller import Controller
from safetraind.machines.lender import RankLender
from safetraind.models.registry import Models
from safetraind.processes.supervisor import Supervisor
from safetraind.service.error_mapping import guarded


class MachinesService(machines_pb2_grpc.MachinesServicer):
    """Checks the terms of a training, and runs a rank of it."""

    def __init__(
        self, controller: Controller, models: Models, supervisor: Supervisor, device: str
    ) -> None:
        self._controller = controller
        borrow = self._borrow
        self._lender = RankLender(controller.home, models, supervisor, device, borrow)

    def lent(self) -> LentRank | None:
        """Return the rank to which this machine lends its GPU now."""
        return self._lender.lent()

    @guarded
    async def Check(  # noqa: N802
        self, request: machines_pb2.RankTerms, context: Any
    ) -> machines_pb2.RankFitness:
        """Return what this machine could lend. Raises what speaks against it."""
        return await self._lender.check(request, busy=not self._controller.idle)

    @guarded
    async def Lend(  # noqa: N802
        self, requests: AsyncIterator[machines_pb2.LendRequest], context: Any
    ) -> AsyncIterator[machines_pb2.LendEvent]:
        """Run a rank for as long as the call lasts. Raises Busy where the GPU is in use."""
        async with aclosing(self._lender.lend(requests)) as events:
            async for event in events:
                yield event

    async def _borrow(self) -> int | None:
        return await self._controller.borrow_lease(wait=False) if self._controller.idle else None

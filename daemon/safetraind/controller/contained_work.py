"""Background work on one job: an unforeseen exception fails that job alone, never the queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from safetrain_shared.findings import Finding, Status
from safetrain_shared.paths import Home
from safetraind.controller.retries import Retries
from safetraind.processes.supervisor import Supervisor
from safetraind.scheduler import triggers

log = logging.getLogger(__name__)

Happened = Callable[[triggers.Trigger], Awaitable[None]]


class ContainedWork:
    """Starts tasks that belong to a job."""

    def __init__(
        self, home: Home, supervisor: Supervisor, retries: Retries, happened: Happened
    ) -> None:
        """`happened` takes the triggers for the scheduler."""
        self._home = home
        self._supervisor = supervisor
        self._retries = retries
        self._happened = happened

    def begin(self, job_id: int, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start work on a job, in the background."""
        return self._retries.begin(self._contained(job_id, work))

    def broken(self, error: Exception) -> Finding:
        """Return the cause of a job whose work broke."""
        args = {"reason": f"{type(error).__name__}: {error}"[:200], "log": str(self._home.log)}
        return Finding("daemon.broken", Status.FAILED, True, args)

    async def _contained(self, job_id: int, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            log.exception("job %d: the work on it broke", job_id)
            worker = self._supervisor.adopt(self._home.run(job_id))
            await worker.ended()  # then it holds no lease
            await self._happened(triggers.WorkBroke(job_id, self.broken(error)))

"""The check of the job whose turn has come: it is probed and planned while the daemon holds the
lease.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from safetrain_shared.errors import NoRoom, SafetrainError
from safetrain_shared.findings import Finding, finding_of
from safetrain_shared.jobs import JobSpec, Plan
from safetraind.controller.contained_work import ContainedWork, Happened
from safetraind.controller.gpu_lease import GpuLease
from safetraind.controller.job_files import JobFiles
from safetraind.controller.start_failure import start_failure
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.processes.supervisor import Supervisor
from safetraind.scheduler import triggers

log = logging.getLogger(__name__)


class Checker(Protocol):
    """Probes and plans a job whose turn has come. `phase`: its present phase, for display."""

    phase: str

    async def check(self, spec: JobSpec, launcher: EphemeralWorkers) -> Plan | Finding:
        """Return the frozen plan, or what blocks the training."""


class JobCheck:
    """The one check at a time."""

    def __init__(
        self,
        files: JobFiles,
        supervisor: Supervisor,
        lease: GpuLease,
        work: ContainedWork,
        checker: Checker,
        happened: Happened,
    ) -> None:
        self._files = files
        self._supervisor = supervisor
        self._lease = lease
        self._work = work
        self._checker = checker
        self._happened = happened
        self._task: asyncio.Task[None] | None = None

    @property
    def phase(self) -> str:
        """The phase of the check in progress; empty where there is none."""
        return self._checker.phase

    def start(self, job_id: int) -> None:
        """Check the job in the background."""
        self._task = self._work.begin(job_id, self._run(job_id))

    def stop(self) -> None:
        """Break the check off."""
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait for the end of the check in progress."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self, job_id: int) -> None:
        trigger: triggers.Trigger
        try:
            trigger = await self._verdict(job_id)
        except asyncio.CancelledError:
            trigger = triggers.CheckEnded(job_id)
        except (OSError, NoRoom) as error:
            log.warning("job %d: its check could not go on: %s", job_id, error)
            cause = start_failure(self._files.run(job_id), error)
            trigger = triggers.LaunchFailed(job_id, cause)
        except SafetrainError as error:
            trigger = triggers.CheckEnded(job_id, finding_of(error))
        except Exception as error:
            log.exception("job %d: its check broke", job_id)
            trigger = triggers.CheckEnded(job_id, self._work.broken(error))
        self._task = None
        await self._happened(trigger)

    async def _verdict(self, job_id: int) -> triggers.Trigger:
        workers = EphemeralWorkers(self._files.home, self._supervisor, self._lease.descriptor)
        verdict = await self._checker.check(self._files.record(job_id).spec, workers)
        if isinstance(verdict, Plan):
            return triggers.CheckPassed(job_id, verdict)
        return triggers.CheckEnded(job_id, verdict)

"""`safetrain.v1.Preflight`: runs a preflight and streams its sections as they finish."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

from safetrain_proto.v1 import preflight_pb2, preflight_pb2_grpc
from safetrain_shared.findings import Finding
from safetrain_shared.wire import finding_to_wire, plan_to_wire, spec_from_wire
from safetraind.controller.controller import Controller
from safetraind.preflight import preflight_run as steps
from safetraind.preflight.job_preflight import Planning
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.processes.supervisor import Supervisor
from safetraind.service.error_mapping import guarded
from safetraind.storage.bounded_read import bounded
from safetraind.submission import check_absolute
from safetraind.worker_messages.role import WorkerProgress


class PreflightService(preflight_pb2_grpc.PreflightServicer):
    """Runs preflights, with measurements where the GPU is free or waited for."""

    def __init__(self, controller: Controller, supervisor: Supervisor, planning: Planning) -> None:
        self._controller = controller
        self._supervisor = supervisor
        self._planning = planning

    @guarded
    async def Run(  # noqa: N802
        self, request: preflight_pb2.PreflightRequest, context: Any
    ) -> AsyncIterator[preflight_pb2.PreflightEvent]:
        """Stream the seven sections, the recommendation and the summary.

        The GPU lease is borrowed only while steps are measured. With `wait` the run stops before
        the measurements until the lease is free.
        """
        spec = spec_from_wire(request.spec)
        for path in (spec.train, spec.valid, spec.output):
            check_absolute(path)
        launcher = EphemeralWorkers(self._controller.home, self._supervisor)
        lease: int | None = None
        prepare = partial(self._planning.preflight_run, thorough=request.thorough)
        preflight_run = await bounded(spec.model, prepare, spec, launcher)
        try:
            async with aclosing(preflight_run.run()) as run:
                async for step in run:
                    if not isinstance(step, WorkerProgress):
                        _return_lease(lease, launcher)
                        lease = None
                    if step == steps.PROBING:
                        lease = await self._controller.borrow_lease(wait=False)
                        if lease is None and request.wait:
                            yield _progress("queue")
                            lease = await self._controller.borrow_lease(wait=True)
                        launcher.lend(lease)
                    yield _to_wire(step)
        finally:
            _return_lease(lease, launcher)


def _return_lease(lease: int | None, launcher: EphemeralWorkers) -> None:
    if lease is not None:
        launcher.lend(None)
        os.close(lease)


def _progress(phase: str, done: float = -1.0) -> preflight_pb2.PreflightEvent:
    message = preflight_pb2.PreflightProgress(phase=phase, done=done)
    return preflight_pb2.PreflightEvent(progress=message)


def _to_wire(step: steps.Step) -> preflight_pb2.PreflightEvent:
    match step:
        case steps.SectionStarted(section):
            started = preflight_pb2.SectionStarted(section=section)
            return preflight_pb2.PreflightEvent(section=started)
        case Finding():
            return preflight_pb2.PreflightEvent(finding=finding_to_wire(step))
        case WorkerProgress(phase, done):
            return _progress(phase, done)
        case steps.Recommendation(plan, measured):
            recommended = preflight_pb2.Recommendation(plan=plan_to_wire(plan), measured=measured)
            return preflight_pb2.PreflightEvent(recommendation=recommended)
        case steps.Summary():
            summary = preflight_pb2.PreflightSummary(
                passed=step.passed,
                failed=step.failed,
                warnings=step.warnings,
                blocked=step.blocked,
                report_path=step.report_path,
                config_path=step.config_path,
            )
            return preflight_pb2.PreflightEvent(summary=summary)

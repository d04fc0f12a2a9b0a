"""`safetrain.v1.Diagnosis`: findings about a training and the machine it runs on."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from google.protobuf import struct_pb2

from safetrain_proto.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from safetrain_shared.wire import finding_to_wire
from safetraind.controller.controller import Controller
from safetraind.diagnosis import examine
from safetraind.diagnosis.diagnosis_facts import Facts
from safetraind.diagnosis.gather import gather
from safetraind.models.registry import Models
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.processes.supervisor import Supervisor
from safetraind.service.error_mapping import guarded

# Facts that describe the kind of machine and identify neither it nor its user.
_OF_HOST = (
    "system", "system_version", "architecture", "rosetta", "chip", "model", "memory_total",
    "memory_free", "memory_limit", "swap_used", "pressure", "cpu_cores", "performance_cores",
    "gpu_cores", "on_battery", "low_power",
)  # fmt: skip


class DiagnosisService(diagnosis_pb2_grpc.DiagnosisServicer):
    """Gathers the facts and returns the findings about them."""

    def __init__(self, controller: Controller, supervisor: Supervisor, models: Models) -> None:
        self._controller = controller
        self._supervisor = supervisor
        self._models = models

    @guarded
    async def Examine(  # noqa: N802
        self, request: diagnosis_pb2.ExamineRequest, context: Any
    ) -> diagnosis_pb2.ExamineResponse:
        """Return the findings of every topic. A free GPU is tried, which takes some seconds."""
        lease = await self._controller.borrow_lease(wait=False)
        try:
            launcher = EphemeralWorkers(self._controller.home, self._supervisor, lease)
            facts = await gather(self._controller, self._models, launcher, request.job_id)
        finally:
            if lease is not None:
                os.close(lease)
        return diagnosis_pb2.ExamineResponse(
            job_id=facts.history.id if facts.history else 0,
            findings=[finding_to_wire(finding) for finding in examine(facts)],
            machine=_machine(facts),
        )


def _machine(facts: Facts) -> struct_pb2.Struct:
    host, device = facts.machine.host, facts.machine.device
    values = {name: getattr(host, name) for name in _OF_HOST}
    machine = struct_pb2.Struct()
    machine.update(
        {
            "host": values,
            "device": dataclasses.asdict(device) if device else None,
            "python": facts.machine.python,
            "versions": facts.versions,
            "openblas": facts.machine.openblas,
            "compiler": facts.machine.compiler,
            "disk_free": facts.machine.disk.free,
        }
    )
    return machine

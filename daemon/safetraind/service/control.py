"""`safetrain.v1.Control`: information about the daemon process, and stopping it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from safetrain_proto.v1 import control_pb2, control_pb2_grpc
from safetrain_shared.jobs import JobState
from safetraind.controller.controller import Controller
from safetraind.service.error_mapping import guarded

# Features that a client may check for before use; entries are never removed.
FEATURES = (
    "jobs",
    "events",
    "preflight",
    "validate",
    "models",
    "ask",
    "ask-training",
    "export",
    "diagnose",
)


class ControlService(control_pb2_grpc.ControlServicer):
    """Describes and stops the daemon process."""

    def __init__(
        self,
        controller: Controller,
        device: str,
        methods: Sequence[str],
        stop: Callable[[bool], None],
    ) -> None:
        """`methods`: every call that the daemon accepts. `stop(now)` begins the shutdown."""
        self._methods = methods
        self._controller = controller
        self._device = device
        self._stop = stop
        self._started = time.time()

    @guarded
    async def Info(  # noqa: N802
        self, request: control_pb2.InfoRequest, context: Any
    ) -> control_pb2.InfoResponse:
        """Return version, process, home, features, methods and the job in training."""
        return control_pb2.InfoResponse(
            version=package_version(),
            pid=os.getpid(),
            home=str(self._controller.home.root),
            started=self._started,
            features=FEATURES,
            methods=self._methods,
            device=self._device,
            training_job=self._training_job(),
        )

    @guarded
    async def Stop(  # noqa: N802
        self, request: control_pb2.StopRequest, context: Any
    ) -> control_pb2.StopResponse:
        """Begin the shutdown and return the job that continues training without a daemon."""
        training = 0 if request.now else self._training_job()
        self._stop(request.now)
        return control_pb2.StopResponse(training_job=training)

    def _training_job(self) -> int:
        active = self._controller.scheduler.active
        return active.id if active and active.state is JobState.RUNNING else 0


def package_version() -> str:
    """Return the version of the installed package; "0" if it is not installed."""
    try:
        return version("safetrain")
    except PackageNotFoundError:
        return "0"

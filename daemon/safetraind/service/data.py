"""`safetrain.v1.Data`: every problem of training files, found by a child process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from safetrain_proto.v1 import data_pb2, data_pb2_grpc
from safetrain_shared.codec import from_plain
from safetrain_shared.errors import Broken
from safetrain_shared.findings import Finding
from safetrain_shared.wire import finding_to_wire
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.service.error_mapping import guarded
from safetraind.submission import check_absolute

Line = Mapping[str, Any]


class DataService(data_pb2_grpc.DataServicer):
    """Hands on what the inspect worker writes."""

    def __init__(self, launcher: EphemeralWorkers) -> None:
        self._launcher = launcher

    @guarded
    async def Validate(  # noqa: N802
        self, request: data_pb2.ValidateRequest, context: Any
    ) -> AsyncIterator[data_pb2.ValidateEvent]:
        """Progress, problems and summaries as they come."""
        for path in request.paths:
            check_absolute(path)
        lines: asyncio.Queue[Line | None] = asyncio.Queue()
        work = asyncio.create_task(self._inspect(list(request.paths), lines))
        try:
            while (line := await lines.get()) is not None:
                event = _to_wire(line)
                if event is not None:
                    yield event
            await work
        finally:
            work.cancel()

    async def _inspect(self, paths: list[str], lines: asyncio.Queue[Line | None]) -> None:
        try:
            ended = await self._launcher.run_worker(
                "inspect", {"files": paths}, lease=False, on_progress=lines.put_nowait
            )
            if ended.result is None:
                raise Broken("daemon.broken", reason=f"inspect: {dict(ended.exit)}", log=ended.log)
        finally:
            lines.put_nowait(None)


def _to_wire(line: Line) -> data_pb2.ValidateEvent | None:
    """The line as a message; None for its last one, and for kinds of a newer worker."""
    if "progress" in line:
        return data_pb2.ValidateEvent(progress=data_pb2.ValidateProgress(**line["progress"]))
    if "problem" in line:
        problem = from_plain(line["problem"], Finding)
        return data_pb2.ValidateEvent(problem=finding_to_wire(problem))
    if "summary" in line:
        return data_pb2.ValidateEvent(summary=data_pb2.FileSummary(**line["summary"]))
    return None

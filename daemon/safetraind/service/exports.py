"""`safetrain.v1.Exports`: fuses a job's adapter into a model folder, in a worker with the GPU."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from safetrain_proto.v1 import exports_pb2, exports_pb2_grpc
from safetrain_shared.errors import Blocked, Broken, Busy, error_from_dict
from safetraind.answer_routing import own_adapter
from safetraind.controller.controller import Controller
from safetraind.processes.ephemeral import EphemeralWorkers, WorkerResult
from safetraind.processes.supervisor import Supervisor
from safetraind.service.adapter_choice import job_with_adapter
from safetraind.service.error_mapping import guarded
from safetraind.storage.bounded_read import bounded
from safetraind.storage.export_folder import check_free, partial_of
from safetraind.submission import checked_output

_SIGKILL = 9
Line = Mapping[str, Any]


class ExportsService(exports_pb2_grpc.ExportsServicer):
    """Chooses the adapter, lends the GPU to the export worker and streams its output."""

    def __init__(self, controller: Controller, supervisor: Supervisor) -> None:
        self._controller = controller
        self._supervisor = supervisor

    @guarded
    async def Run(  # noqa: N802
        self, request: exports_pb2.ExportRequest, context: Any
    ) -> AsyncIterator[exports_pb2.ExportEvent]:
        """Stream progress, and last the exported model."""
        work = await bounded(request.output, self._work, request)
        yield _progress({"phase": "queue", "done": -1.0})
        lease = await self._controller.borrow_lease(wait=request.wait)
        if lease is None:
            raise Busy("export.gpu_busy")
        lines: asyncio.Queue[Line | None] = asyncio.Queue()
        launcher = EphemeralWorkers(self._controller.home, self._supervisor, lease)
        running = asyncio.create_task(_run(launcher, work, lines))
        try:
            while (line := await lines.get()) is not None:
                yield _progress(line)
            yield _exported(work, await running)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            os.close(lease)
            shutil.rmtree(partial_of(Path(work["output"])), ignore_errors=True)

    def _work(self, request: exports_pb2.ExportRequest) -> dict[str, Any]:
        """Return the worker's request.

        Raises NotFound, Conflict, and what `checked_output` raises.
        """
        output = checked_output(Path(request.output))
        check_free(output)
        job = job_with_adapter(self._controller, request.job_id)
        adapter = own_adapter(job, request.checkpoint)
        spec = self._controller.record(job.id).spec
        return {
            "model": job.model,
            "adapter": str(adapter),
            "output": str(output),
            "valid": spec.valid,
            "thinking": spec.complete_settings.thinking,
            "gguf": request.gguf,
            "dequantize": request.dequantize,
            "trust_remote_code": spec.trust_remote_code,
            "about": {"job": job.id, "base": spec.model, "adapter": str(adapter)},
        }


async def _run(
    launcher: EphemeralWorkers, work: dict[str, Any], lines: asyncio.Queue[Line | None]
) -> dict[str, Any]:
    try:
        ended = await launcher.run_worker("export", work, lease=True, on_progress=lines.put_nowait)
        return _result(ended)
    finally:
        lines.put_nowait(None)


def _result(ended: WorkerResult) -> dict[str, Any]:
    """Return the worker's result. Raises the error in the result; Blocked or Broken without one."""
    if ended.result is None:
        signal, code = int(ended.exit.get("signal", 0)), int(ended.exit.get("code", 0))
        oom_kills = ended.exit.get("oom_kills")
        # A SIGKILL where out-of-memory kills are counted and none was came from another process.
        if ended.limit == "memory" or oom_kills or (signal == _SIGKILL and oom_kills is None):
            raise Blocked("export.out_of_memory")
        raise Broken("export.died", code=code, signal=signal)
    if "error" in ended.result:
        raise error_from_dict(ended.result["error"])
    return ended.result


def _progress(line: Line) -> exports_pb2.ExportEvent:
    progress = exports_pb2.ExportProgress(phase=line["phase"], done=line["done"])
    return exports_pb2.ExportEvent(progress=progress)


def _exported(work: dict[str, Any], result: dict[str, Any]) -> exports_pb2.ExportEvent:
    exported = exports_pb2.Exported(
        job_id=work["about"]["job"],
        path=result["path"],
        adapter=work["adapter"],
        bytes=result["bytes"],
        quantized=result["quantized"],
        bits=result["bits"],
        agreement=exports_pb2.Agreement(**result["agreement"]),
        modelfile=result["modelfile"],
    )
    if result["gguf"]:
        exported.gguf = result["gguf"]["path"]
        exported.gguf_agreement.CopyFrom(exports_pb2.Agreement(**result["gguf"]["agreement"]))
    return exports_pb2.ExportEvent(exported=exported)

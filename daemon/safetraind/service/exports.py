"""`safetrain.v1.Exports`: fuses a job's adapter into a model folder, in a worker with the GPU."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from safetrain_proto.v1 import exports_pb2, exports_pb2_grpc
from safetrain_shared.errors import Blocked, Broken, Busy, InvalidInput
from safetrain_shared.gguf_types import GGUF_TYPES
from safetraind.answer_routing import own_adapter
from safetraind.controller.controller import Controller
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.processes.supervisor import Supervisor
from safetraind.service.adapter_choice import job_with_adapter
from safetraind.service.error_mapping import guarded
from safetraind.storage.bounded_read import bounded
from safetraind.storage.export_folder import check_free, partial_of
from safetraind.storage.folder_lock import remove_unclaimed
from safetraind.submission import checked_output
from safetraind.worker_messages.export_messages import (
    EXPORT,
    Agreement,
    Exported,
    ExportRequest,
    Origin,
)
from safetraind.worker_messages.role import WorkerProgress
from safetraind.worker_messages.worker_result import WorkerResult


class ExportsService(exports_pb2_grpc.ExportsServicer):
    """Chooses the adapter, lends the GPU to the export worker and streams its output."""

    def __init__(self, controller: Controller, supervisor: Supervisor) -> None:
        self._controller = controller
        self._supervisor = supervisor

    @guarded
    async def Run(  # noqa: N802
        self, request: exports_pb2.ExportRequest, context: Any
    ) -> AsyncIterator[exports_pb2.ExportEvent]:
        """Stream progress, and last the exported model. Raises Busy where the GPU is held and the
        request does not wait.
        """
        work = await bounded(request.output, self._work, request)
        yield _progress(WorkerProgress("queue"))
        lease = await self._controller.borrow_lease(wait=request.wait)
        if lease is None:
            raise Busy("export.gpu_busy")
        lines: asyncio.Queue[WorkerProgress | None] = asyncio.Queue()
        launcher = EphemeralWorkers(self._controller.home, self._supervisor, lease)
        running = asyncio.create_task(_run(launcher, work, lines))
        try:
            while (line := await lines.get()) is not None:
                yield _progress(line)
            job_id = work.about.job if work.about else 0
            yield _exported(job_id, work, await running)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            os.close(lease)
            remove_unclaimed(partial_of(Path(work.output)))  # of a worker that was killed

    def _work(self, request: exports_pb2.ExportRequest) -> ExportRequest:
        """Return the worker's request.

        Raises NotFound, Conflict, and what `checked_output` raises.
        """
        output = checked_output(Path(request.output))
        check_free(output)
        job = job_with_adapter(self._controller, request.job_id)
        adapter = own_adapter(job, request.checkpoint)
        spec = self._controller.record(job.id).spec
        return ExportRequest(
            model=job.model,
            adapter=str(adapter),
            output=str(output),
            valid=spec.valid,
            thinking=spec.complete_settings.thinking,
            gguf=request.gguf,
            gguf_type=_gguf_type(request.gguf_type),
            dequantize=request.dequantize,
            trust_remote_code=spec.trust_remote_code,
            about=Origin(job.id, spec.model, str(adapter)),
        )


def _gguf_type(asked: str) -> str:
    """Return the requested type, the default if none. Raises InvalidInput."""
    if asked not in ("", *GGUF_TYPES):
        raise InvalidInput("request.malformed", reason=f"gguf_type: {asked[:50]}")
    return asked or GGUF_TYPES[0]


async def _run(
    launcher: EphemeralWorkers, work: ExportRequest, lines: asyncio.Queue[WorkerProgress | None]
) -> Exported:
    try:
        ended = await launcher.run_worker(EXPORT, work, lease=True, on_progress=lines.put_nowait)
        return _result(ended)
    finally:
        lines.put_nowait(None)


def _result(ended: WorkerResult[Exported]) -> Exported:
    """Return the worker's result. Raises the error in the result; Blocked or Broken without one."""
    result, note = ended.result, ended.exit
    if result is not None:
        return result
    # A SIGKILL where out-of-memory kills are counted and none was came from another process.
    uncounted = note.signal == signal.SIGKILL and note.oom_kills is None
    if ended.limit == "memory" or note.oom_kills or uncounted:
        raise Blocked("export.out_of_memory")
    raise Broken("export.died", code=note.code, signal=note.signal)


def _progress(line: WorkerProgress) -> exports_pb2.ExportEvent:
    progress = exports_pb2.ExportProgress(phase=line.phase, done=line.done)
    return exports_pb2.ExportEvent(progress=progress)


def _exported(job_id: int, work: ExportRequest, result: Exported) -> exports_pb2.ExportEvent:
    exported = exports_pb2.Exported(
        job_id=job_id,
        path=result.path,
        adapter=work.adapter,
        bytes=result.bytes,
        quantized=result.quantized,
        bits=result.bits,
        agreement=_agreement(result.agreement),
        modelfile=result.modelfile,
    )
    if result.gguf:
        exported.gguf = result.gguf.path
        exported.gguf_type = result.gguf.type
        exported.gguf_agreement.CopyFrom(_agreement(result.gguf.agreement))
    return exports_pb2.ExportEvent(exported=exported)


def _agreement(found: Agreement) -> exports_pb2.Agreement:
    return exports_pb2.Agreement(lost=found.lost, tokens=found.tokens, differing=found.differing)

"""`safetrain.v1.Evaluations`: compares base and adapter on questions, in a worker with the GPU."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from safetrain_proto.v1 import evaluations_pb2, evaluations_pb2_grpc
from safetrain_shared.errors import Blocked, Broken, Busy, error_from_dict
from safetrain_shared.paths import EVALUATION
from safetraind.answer_routing import Candidate, own_adapter
from safetraind.controller.controller import Controller
from safetraind.processes.ephemeral import EphemeralWorkers, WorkerResult
from safetraind.processes.supervisor import Supervisor
from safetraind.service.adapter_choice import job_with_adapter
from safetraind.service.error_mapping import guarded
from safetraind.storage.bounded_read import bounded
from safetraind.submission import checked_file

_SIGKILL = 9
Line = Mapping[str, Any]


class EvaluationsService(evaluations_pb2_grpc.EvaluationsServicer):
    """Chooses adapter and questions, lends the GPU to a worker and streams its output."""

    def __init__(self, controller: Controller, supervisor: Supervisor) -> None:
        self._controller = controller
        self._supervisor = supervisor

    @guarded
    async def Run(  # noqa: N802
        self, request: evaluations_pb2.EvaluateRequest, context: Any
    ) -> AsyncIterator[evaluations_pb2.EvaluateEvent]:
        """Stream progress, and last the evaluation."""
        job = await bounded(
            self._controller.home.root, job_with_adapter, self._controller, request.job_id
        )
        work = await bounded(job.output, self._work, job, request)
        yield _progress({"phase": "queue", "done": -1.0})
        lease = await self._controller.borrow_lease(wait=request.wait)
        if lease is None:
            raise Busy("export.gpu_busy")
        lines: asyncio.Queue[Line | None] = asyncio.Queue()
        workers = EphemeralWorkers(self._controller.home, self._supervisor, lease)
        running = asyncio.create_task(
            workers.run_worker("evaluate", work, lease=True, on_progress=lines.put_nowait)
        )
        running.add_done_callback(lambda _: lines.put_nowait(None))
        try:
            while (line := await lines.get()) is not None:
                yield _progress(line)
            yield _evaluation(job.id, work, _result(await running))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            os.close(lease)

    def _work(self, job: Candidate, request: evaluations_pb2.EvaluateRequest) -> dict[str, Any]:
        """Return the worker's request. Raises NotFound, and what `checked_file` raises."""
        spec = self._controller.record(job.id).spec
        questions = request.questions or spec.valid
        checked_file(Path(questions))
        return {
            "model": job.model,
            "adapters": {"adapter": str(own_adapter(job, request.checkpoint))},
            "questions": questions,
            "train": spec.train,
            "folder": str(job.output / EVALUATION),
            "max_tokens": max(0, request.max_tokens),
            "limit": max(0, request.limit),
            "trust_remote_code": spec.trust_remote_code,
        }


def _result(ended: WorkerResult) -> dict[str, Any]:
    """Return the worker's result. Raises the error in the result; Blocked or Broken without one."""
    if ended.result is None:
        signal, code = int(ended.exit.get("signal", 0)), int(ended.exit.get("code", 0))
        if ended.exit.get("oom_kills"):
            raise Blocked("evaluate.out_of_memory")
        raise Broken("evaluate.died", code=code, signal=signal)
    if "error" in ended.result:
        raise error_from_dict(ended.result["error"])
    return ended.result


def _progress(line: Line) -> evaluations_pb2.EvaluateEvent:
    progress = evaluations_pb2.EvaluateProgress(phase=line["phase"], done=line["done"])
    return evaluations_pb2.EvaluateEvent(progress=progress)


def _evaluation(
    job_id: int, work: Mapping[str, Any], result: Mapping[str, Any]
) -> evaluations_pb2.EvaluateEvent:
    evaluation = evaluations_pb2.Evaluation(
        job_id=job_id,
        questions=work["questions"],
        adapter=work["adapters"]["adapter"],
        weak=result["weak"],
        verdict=evaluations_pb2.Verdict(**result["verdict"]),
        answers=[evaluations_pb2.EvaluatedAnswer(**answer) for answer in result["answers"]],
        path=f"{work['folder']}/evaluation.json",
    )
    return evaluations_pb2.EvaluateEvent(evaluation=evaluation)

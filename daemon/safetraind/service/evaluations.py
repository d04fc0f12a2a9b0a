"""`safetrain.v1.Evaluations`: compares base and adapter on questions, in a worker with the GPU."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from safetrain_proto.v1 import evaluations_pb2, evaluations_pb2_grpc
from safetrain_shared.errors import Blocked, Broken, Busy
from safetrain_shared.paths import EVALUATION
from safetraind.answer_routing import Candidate, own_adapter
from safetraind.controller.controller import Controller
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.processes.supervisor import Supervisor
from safetraind.service.adapter_choice import job_with_adapter
from safetraind.service.error_mapping import guarded
from safetraind.submission import checked_file
from safetraind.worker_messages.evaluate_messages import EVALUATE, EvaluateRequest, Evaluation
from safetraind.worker_messages.role import Progress
from safetraind.worker_messages.worker_result import WorkerResult

_MAX_TOKENS = 128


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
        job = job_with_adapter(self._controller, request.job_id)
        work = self._work(job, request)
        yield _progress(Progress("queue"))
        lease = await self._controller.borrow_lease(wait=request.wait)
        if lease is None:
            raise Busy("export.gpu_busy")
        lines: asyncio.Queue[Progress | None] = asyncio.Queue()
        workers = EphemeralWorkers(self._controller.home, self._supervisor, lease)
        running = asyncio.create_task(
            workers.run_worker(EVALUATE, work, lease=True, on_progress=lines.put_nowait)
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

    def _work(self, job: Candidate, request: evaluations_pb2.EvaluateRequest) -> EvaluateRequest:
        """Return the worker's request. Raises NotFound, and what `checked_file` raises."""
        spec = self._controller.record(job.id).spec
        questions = request.questions or spec.valid
        checked_file(Path(questions))
        return EvaluateRequest(
            model=job.model,
            adapter=str(own_adapter(job, request.checkpoint)),
            questions=questions,
            train=spec.train,
            folder=str(job.output / EVALUATION),
            max_tokens=request.max_tokens or _MAX_TOKENS,
            limit=max(0, request.limit),
            trust_remote_code=spec.trust_remote_code,
        )


def _result(ended: WorkerResult[Evaluation]) -> Evaluation:
    """Return the worker's result. Raises the error in the result; Blocked or Broken without one."""
    result = ended.result
    if result is not None:
        return result
    if ended.exit.oom_kills:
        raise Blocked("evaluate.out_of_memory")
    raise Broken("evaluate.died", code=ended.exit.code, signal=ended.exit.signal)


def _progress(line: Progress) -> evaluations_pb2.EvaluateEvent:
    progress = evaluations_pb2.EvaluateProgress(phase=line.phase, done=line.done)
    return evaluations_pb2.EvaluateEvent(progress=progress)


def _evaluation(
    job_id: int, work: EvaluateRequest, result: Evaluation
) -> evaluations_pb2.EvaluateEvent:
    evaluation = evaluations_pb2.Evaluation(
        job_id=job_id,
        questions=work.questions,
        adapter=work.adapter,
        weak=result.weak,
        verdict=evaluations_pb2.Verdict(**dataclasses.asdict(result.verdict)),
        answers=[
            evaluations_pb2.EvaluatedAnswer(**dataclasses.asdict(answer))
            for answer in result.answers
        ],
        path=f"{work.folder}/evaluation.json",
    )
    return evaluations_pb2.EvaluateEvent(evaluation=evaluation)

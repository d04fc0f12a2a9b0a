"""`safetrain.v1.Evaluations`: queues evaluations as jobs of their own, and promotes checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetrain_proto.v1 import evaluations_pb2, evaluations_pb2_grpc
from safetrain_shared.errors import (
    Blocked,
    Broken,
    Conflict,
    InvalidInput,
    NotFound,
    SafetrainError,
    Unreachable,
)
from safetrain_shared.evaluations import Evaluation, EvaluationSpec
from safetrain_shared.events import Event, PhaseChanged, QuestionsAnswered, StateChanged
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import FINAL, JobSpec, JobState
from safetrain_shared.paths import EVALUATION, EVALUATION_RESULT, QUESTIONS
from safetrain_shared.wire import fill
from safetraind.answer_routing import Candidate, own_adapter
from safetraind.controller.controller import Controller
from safetraind.service.adapter_choice import job_with_adapter
from safetraind.service.error_mapping import guarded
from safetraind.storage import documents, promotion
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.storage.job_document import Forecast, JobDocument
from safetraind.submission import checked_file

_KINDS: Mapping[str, type[SafetrainError]] = {
    "evaluate.": InvalidInput,
    "adapter.": NotFound,
    "job.cancelled": Conflict,
}
_WAITING = (JobState.QUEUED, JobState.INTERRUPTED, JobState.PAUSED)


class EvaluationsService(evaluations_pb2_grpc.EvaluationsServicer):
    """An evaluation is a job: it waits for the GPU, continues after a kill, and is watched."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    @guarded
    async def Run(  # noqa: N802
        self, request: evaluations_pb2.EvaluateRequest, context: Any
    ) -> AsyncIterator[evaluations_pb2.EvaluateEvent]:
        """Queue the evaluation, or attach to an equal one. Stream its progress, and last the
        result.

        A client that disconnects does not end it.
        """
        trained = await self._trained(request.job_id)
        document = await bounded(trained.output, self._document, trained, request)
        job_id = self._live(document) or self._accept(document)
        yield _progress(job_id, "queue", -1.0)
        async with aclosing(self._followed(job_id)) as events:
            async for event in events:
                if (progress := _to_wire(job_id, event)) is not None:
                    yield progress
        yield self._result(job_id)

    @guarded
    async def Promote(  # noqa: N802
        self, request: evaluations_pb2.PromoteRequest, context: Any
    ) -> evaluations_pb2.Promoted:
        """Make a kept checkpoint the job's adapter. Raises NotFound, Conflict or Damaged."""
        trained = await self._trained(request.job_id)
        if trained.state not in FINAL:
            raise Conflict("promote.live", id=trained.id)
        which = (trained.id, trained.home, request.checkpoint)
        place = trained.output
        done = await bounded(place, promotion.promote, place, *which, seconds=SLOW_SECONDS)
        return evaluations_pb2.Promoted(
            checkpoint=done.checkpoint, before=done.before, path=done.path
        )

    async def _trained(self, job_id: int) -> Candidate:
        """Return the job of that id, or the newest with an adapter. Raises NotFound."""
        home = self._controller.home.root
        return await bounded(home, job_with_adapter, self._controller, job_id)

    def _document(
        self, trained: Candidate, request: evaluations_pb2.EvaluateRequest
    ) -> JobDocument:
        """Return the evaluation's job. Raises NotFound, and what `checked_file` raises."""
        record = self._controller.record(trained.id)
        spec = record.spec
        questions = Path(request.questions or _questions_of(spec) or spec.valid)
        checked_file(questions)
        if request.tasks and find_spec("lm_eval") is None:
            raise Unreachable("evaluate.no_harness")
        folder = request.folder
        if not folder:  # raises NotFound where there is none
            folder = str(own_adapter(trained, request.checkpoint)) if request.checkpoint else ""
            own_adapter(trained, request.checkpoint)
        elif trained.replaced_by is not None:  # its answers would lie in another's folder
            own_adapter(trained)
        asked = EvaluationSpec(
            job=trained.id,
            questions=str(questions),
            folder=folder,
            checkpoints=request.checkpoints,
            general=request.general,
            max_tokens=max(0, request.max_tokens),
            limit=max(0, request.limit),
            tasks=tuple(request.tasks),
        )
        output = str(trained.output / EVALUATION)
        spec = dataclasses.replace(spec, output=output, start_adapter="", evaluation=asked)
        return dataclasses.replace(record.document, spec=spec, forecast=Forecast(), job=0)

    def _live(self, document: JobDocument) -> int:
        """Return the live job of an equal evaluation; 0 where there is none."""
        for record in self._controller.store.by_output(document.spec.output):
            live = self._controller.job(record.job.id).state not in FINAL
            if live and record.spec.evaluation == document.spec.evaluation:
                return record.job.id
        return 0

    def _accept(self, document: JobDocument) -> int:
        return self._controller.accept(document, document.spec.output).job.id

    async def _followed(self, job_id: int) -> AsyncGenerator[Event, None]:
        """Yield the job's events from now on, until it has ended."""
        feed = self._controller.feed(job_id)
        offset = feed.size() if self._controller.progress(job_id).last_seq else 0
        while True:
            changes, ended = feed.changes, self._controller.job(job_id).state in FINAL
            chunk = feed.read(min(offset, feed.size()))
            offset = chunk.end
            for event in chunk.events:
                yield event
            self._controller.note_delivered(job_id, max((e.seq for e in chunk.events), default=0))
            if chunk.more:
                continue
            if ended:
                return
            if self._controller.stopping:
                raise Unreachable("daemon.stopping")
            await feed.changed(changes)

    def _result(self, job_id: int) -> evaluations_pb2.EvaluateEvent:
        """Return the whole evaluation. Raises the error that ended it."""
        job = self._controller.job(job_id)
        if job.state is not JobState.SUCCEEDED:
            raise _error_of(job.cause)
        path = Path(self._controller.record(job_id).output) / EVALUATION_RESULT
        found = documents.read(path, Evaluation)
        if found is None:
            raise Broken("evaluate.no_result", path=str(path))
        message = evaluations_pb2.Evaluation()
        fill(message, found)
        return evaluations_pb2.EvaluateEvent(evaluation=message)


def _questions_of(spec: JobSpec) -> str:
    """Return the questions that a training was submitted with, else those beside its training
    file, as `prepare` writes them; empty: none.
    """
    if spec.evaluation is not None and spec.evaluation.questions:
        return spec.evaluation.questions
    path = Path(spec.train).parent / QUESTIONS
    return str(path) if path.is_file() else ""


def _to_wire(job_id: int, event: Event) -> evaluations_pb2.EvaluateEvent | None:
    """Convert an event for the client; None for one that is not sent."""
    match event.body:
        case PhaseChanged(phase):
            return _progress(job_id, phase, -1.0)
        case QuestionsAnswered(answered, total, _):
            return _progress(job_id, "asking", answered / max(1, total))
        case StateChanged(state) if state in _WAITING:
            return _progress(job_id, "queue", -1.0)
    return None


def _progress(job_id: int, phase: str, done: float) -> evaluations_pb2.EvaluateEvent:
    progress = evaluations_pb2.EvaluateProgress(phase=phase, done=done, job_id=job_id)
    return evaluations_pb2.EvaluateEvent(progress=progress)


def _error_of(cause: Finding | None) -> SafetrainError:
    """Return the error for a job's cause. A mistake in the input stays one."""
    if cause is None:
        return Broken("evaluate.no_result", path="")
    kinds = (kind for prefix, kind in _KINDS.items() if cause.code.startswith(prefix))
    return next(kinds, Blocked)(cause.code, **cause.args)

"""The worker role `evaluate`: `python -m safetraind.worker evaluate RUN`, a job of its own."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from safetrain_shared.errors import Damaged
from safetrain_shared.evaluations import Evaluation
from safetrain_shared.events import Judged, Outcome, QuestionsAnswered
from safetrain_shared.paths import RunFolder
from safetraind.storage import documents, training_state
from safetraind.storage.job_document import JobDocument
from safetraind.storage.run_folder import Launch
from safetraind.worker.evaluation.evaluate import Work, evaluate, work_of
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.memory_limits import set_limits
from safetraind.worker.training.outcome import outcome_of, run_and_report

_CHECK_SECONDS = 0.2  # between two looks at the intent


def main(arguments: list[str]) -> int:
    """Evaluate the job of the run folder, until the end or an intent. Return the exit code."""
    run = RunFolder(Path(arguments[0]))
    sink = EventSink(run, documents.read(run.launch, Launch) or Launch())
    return run_and_report(sink, lambda: _evaluated(run, sink))


def _evaluated(run: RunFolder, sink: EventSink) -> Outcome:
    """Evaluate, and return the outcome. Raises Damaged where the run folder's specification cannot
    be read.
    """
    document = documents.read(run.spec, JobDocument)
    if document is None:
        raise Damaged("run.unreadable", path=str(run.root), reason="spec.json")
    output = Path(document.spec.output).parent  # the trained job's
    trained = training_state.read(output)
    plan = trained.plan if trained else None
    if plan is not None:
        set_limits(plan)
    model = plan.model_path if plan is not None else document.model.path
    work = work_of(document.job, document.spec, model, output)
    try:
        evaluate_and_tell(work, sink)
    except Left as left:
        return left.outcome
    return Outcome("succeeded")


def evaluate_and_tell(work: Work, sink: EventSink) -> Evaluation:
    """Evaluate, with events for the progress and for the verdict. Raises Left, and the errors of
    `evaluate`.
    """
    found = evaluate(work, EventWatcher(sink))
    sink.emit(Judged(replace(found, answers=(), general_answers=())))
    return found


class Left(Exception):
    """The evaluation ended early, because of an intent."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.outcome)
        self.outcome = outcome


class EventWatcher:
    """The `Watcher` that writes events, and raises Left at an intent."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._answered = 0
        self._looked = 0.0

    def phase(self, name: str) -> None:
        """Emit a phase event."""
        self._sink.phase(name)
        self.check()

    def kept(self, answered: int, total: int, eta_seconds: float) -> None:
        """Emit an event with the number of answers, so that they count as progress if the worker
        dies.
        """
        self._answered = answered
        self._sink.emit(QuestionsAnswered(answered, total, eta_seconds))

    def check(self) -> None:
        """Raise Left if a pause, a cancellation or the stop of the daemon is asked for."""
        if time.monotonic() - self._looked < _CHECK_SECONDS:
            return
        self._looked = time.monotonic()
        if intent := self._sink.intent():
            raise Left(outcome_of(intent, self._answered))

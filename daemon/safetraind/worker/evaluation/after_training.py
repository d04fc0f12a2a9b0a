"""The evaluation at the end of a training, by the training's own worker.

The training has succeeded whatever becomes of it: an evaluation that fails is reported.
"""

from __future__ import annotations

import gc

import mlx.core as mx

from safetrain_shared.codec import to_plain
from safetrain_shared.errors import SafetrainError
from safetrain_shared.evaluations import Evaluation
from safetrain_shared.events import Notice, Outcome
from safetrain_shared.findings import Finding, Status, finding_of
from safetrain_shared.paths import EVALUATION, SUMMARY
from safetraind.storage.durable import read_object, write_json
from safetraind.worker.evaluation.evaluate import work_of
from safetraind.worker.evaluation.evaluation_job import Left, evaluate_and_tell
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.outcome import is_out_of_memory
from safetraind.worker.training.task import Task

_ATTEMPTS = 2  # that died without a new answer; then the evaluation is left out


def evaluated_after(job: Task, sink: EventSink, outcome: Outcome) -> Outcome:
    """Return the outcome of a training whose files are all written, after its evaluation, if it
    asks for one.

    Paused where that is asked for meanwhile: the next attempt continues with it. A cancellation
    ends the evaluation alone. Raises OSError where the disk refuses what must be kept.
    """
    if outcome.outcome != "succeeded" or job.spec.evaluation is None:
        return outcome
    if not _may_try(job):
        sink.notice("evaluate.given_up", id=job.job)
        return outcome
    gc.collect()  # the training's arrays
    mx.clear_cache()
    work = work_of(job.job, job.spec, job.plan.model_path, job.output)
    try:
        _add_to_summary(job, evaluate_and_tell(work, sink))
    except Left as left:
        return outcome if left.outcome.outcome == "cancelled" else left.outcome
    except SafetrainError as error:
        found = finding_of(error)
        sink.emit(Notice(Finding(found.code, Status.WARNING, args=found.args)))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        sink.notice("evaluate.out_of_memory")
    return outcome


def _may_try(job: Task) -> bool:
    """Return whether another attempt may help, and note that it begins.

    An evaluation that kills its worker must not fail the training.
    """
    note = job.run.root / "evaluation_attempts.json"
    kept = list((job.output / EVALUATION).glob("answers-*.json"))
    answered = sum(file.stat().st_size for file in kept)
    known = read_object(note)
    attempts = int(known.get("attempts", 0)) if known.get("answered") == answered else 0
    write_json(note, {"format": 1, "attempts": attempts + 1, "answered": answered})
    return attempts < _ATTEMPTS


def _add_to_summary(job: Task, found: Evaluation) -> None:
    """Add the verdict to training_summary.json. Raises OSError."""
    plain = to_plain(found)
    del plain["answers"], plain["general_answers"]
    path = job.output / SUMMARY
    write_json(path, {**read_object(path), "evaluation": plain})

"""The training loop: `python -m safetraind.worker train RUN`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetrain_shared.events import Outcome
from safetrain_shared.findings import Finding
from safetrain_shared.paths import RunFolder
from safetraind.storage import documents, durable
from safetraind.storage.run_folder import Launch
from safetraind.worker import loading
from safetraind.worker.evaluation.after_training import evaluated_after
from safetraind.worker.training import memory_limits, nonfinite, task
from safetraind.worker.training.as_rank import (
    as_rank,
    follow,
    left_by_another,
    refused_for_the_link,
)
from safetraind.worker.training.batches import Batches
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.early_stop import early_stop
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.memory_guard import Guard
from safetraind.worker.training.outcome import outcome_of, run_and_report, waiting_for_room
from safetraind.worker.training.position import RunPosition
from safetraind.worker.training.prepare import encoder_of, load_model, make_batches
from safetraind.worker.training.questions import Questions
from safetraind.worker.training.ranks import Dismissed, Ranks, is_one_of_several
from safetraind.worker.training.run_files import Records
from safetraind.worker.training.schedule import learning_rate
from safetraind.worker.training.segment import Segment
from safetraind.worker.training.step import Stepper
from safetraind.worker.training.stopping_questions import StoppingQuestions
from safetraind.worker.training.task import Task
from safetraind.worker.training.throughput import Throughput
from safetraind.worker.training.token_files import training_samples, validation_samples
from safetraind.worker.training.validation import Validation

_LEAST_LOGGED = 20  # lines of metrics a run has, where it has as many steps


def main(arguments: list[str]) -> int:
    """Train the job in the run folder `arguments[0]`. Return the worker's exit code, see
    `outcome.run_and_report`.

    With several ranks this process is one of them, and the folder is the rank's own.
    """
    run = RunFolder(Path(arguments[0]))
    sink = EventSink(run, documents.read(run.launch, Launch) or Launch())
    if not is_one_of_several():
        return run_and_report(sink, lambda: _train_and_evaluate(task.read(run), sink))
    return as_rank(run, sink, train=_train_and_evaluate, follow=follow)


def _train_and_evaluate(job: Task, sink: EventSink, ranks: Ranks | None = None) -> Outcome:
    return evaluated_after(job, sink, train(job, sink, ranks))


@dataclass(slots=True)
class _Run:
    """A run that is ready for its next step: model, data, records and position."""

    loaded: loading.LoadedModel
    stepper: Stepper
    records: Records
    progress: RunPosition
    samples: Samples
    batches: Batches
    validation: Validation
    total_steps: int


def _prepare(job: Task, sink: EventSink, ranks: Ranks | None) -> _Run:
    """Load the model and the data, at the position of the newest checkpoint. Raises as `train`."""
    settings = job.plan.settings
    loaded, stepper = load_model(job, sink, ranks)

    records = Records(job, sink, stepper)
    progress = records.resume()

    sink.phase("tokenizing")
    encoder = encoder_of(loaded, settings)
    samples = training_samples(job, encoder, progress.first_length)
    held_out = validation_samples(job, encoder, progress.first_length)
    stopping = StoppingQuestions(job, sink, loaded)
    validation = Validation(job, sink, stepper, records, held_out, stopping)
    batches = make_batches(job, samples, progress, ranks)
    total_steps = settings.total_steps(batches.steps_per_epoch)

    durable.write_json(job.run.fallbacks, {"format": 1, **stepper.fallbacks(batches)})
    records.begin(progress, samples, held_out, total_steps)
    return _Run(loaded, stepper, records, progress, samples, batches, validation, total_steps)


def train(job: Task, sink: EventSink, ranks: Ranks | None = None) -> Outcome:
    """Train from the newest checkpoint, or from the beginning, to the end or until an intent.

    `ranks`: those that this process leads.

    Raises SafetrainError for input that can't be used, OSError where the disk refuses a write,
    RankLost where another rank is gone, and RuntimeError as MLX does when memory runs out.
    """
    plan = job.plan
    run = _prepare(job, sink, ranks)
    memory_limits.begin_measuring()

    cause = None
    if ranks is not None:
        step = run.progress.step
        cause = refused_for_the_link(job, sink, ranks, run.stepper, run.batches, step)
    if cause := cause or run.validation.evaluate_base(run.progress):
        outcome = Outcome("failed", cause)
    else:
        with Questions(job, sink, run.loaded) as questions, Guard(plan, sink) as guard:
            try:
                outcome = _loop(job, sink, run, questions, guard)
            except Dismissed:
                outcome = left_by_another(run.progress.step)
                ranks = None  # they have all left
    if ranks is not None:
        run.stepper.leave(run.progress.step)
    if outcome.outcome == "failed" and outcome.cause is not None:
        return run.records.fail(run.progress, outcome.cause)
    run.records.save(run.progress)
    return run.records.conclude(run.progress, outcome)


def _loop(job: Task, sink: EventSink, run: _Run, questions: Questions, guard: Guard) -> Outcome:
    """Train until the end, an intent, or a failure; return the outcome. Raises as `train`."""
    settings = job.plan.settings
    stepper, records, progress = run.stepper, run.records, run.progress
    batches, validation, total_steps = run.batches, run.validation, run.total_steps
    log_steps = logged_every(settings.log_steps, total_steps)
    segment = Segment(settings, progress.step)
    throughput = Throughput(segment)

    while progress.step < total_steps and not early_stop(settings, progress):
        if left := leaving(sink, segment, guard, progress.step):
            return left

        sink.phase("training")
        epoch, place = divmod(progress.step, batches.steps_per_epoch)
        rate = learning_rate(settings, progress.step, total_steps)
        done = stepper.step(batches.window(epoch, place), progress.step, rate)
        if not done.finite:
            window, path = batches.whole_window(epoch, place), job.spec.train
            cause = nonfinite.diagnose_step(stepper, window, run.samples, path, progress.step, rate)
            return Outcome("failed", cause)
        progress.advance(epoch, place, done)
        throughput.add(done)

        if progress.step in (1, total_steps) or progress.step % log_steps == 0:
            records.log(progress, done, rate, throughput)

        at_epoch_end = progress.step_in_epoch == batches.steps_per_epoch
        at_epoch_or_run_end = at_epoch_end or progress.step == total_steps  # by `max_steps`
        save_now = at_epoch_or_run_end or progress.step_in_epoch % settings.save_steps == 0

        if validation.usable and (
            at_epoch_or_run_end or progress.step_in_epoch % settings.eval_steps == 0
        ):
            epoch_end = at_epoch_end and progress.step < total_steps
            best = validation.evaluate(progress, rate, epoch_end=epoch_end)
            if isinstance(best, Finding):
                return Outcome("failed", best)
            save_now |= best

        if save_now or records.save_is_due():
            records.save(progress)
            if sink.struggling:
                return waiting_for_room()

        questions.answer(progress.step)
    return Outcome("succeeded")


def logged_every(log_steps: int, total_steps: int) -> int:
    """Return after how many steps each is logged. A short run is logged more often than asked, or a
    progress bar would stand still.
    """
    return max(1, min(log_steps, total_steps // _LEAST_LOGGED))


def leaving(sink: EventSink, segment: Segment, guard: Guard, step: int) -> Outcome | None:
    """Return the outcome with which to leave after `step` steps; None to continue.

    A run leaves as asked, at the end of a segment, or because others need the memory.
    """
    intent = sink.intent()
    return outcome_of(intent, step) if intent else segment.ended(step) or guard.before_step()

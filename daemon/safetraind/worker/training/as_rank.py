"""A training worker as one of several ranks: rank 0 leads, the others follow it step by step."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from safetrain_shared.errors import EXIT_RANK
from safetrain_shared.events import Notice, Outcome
from safetrain_shared.findings import Finding, Status
from safetrain_shared.paths import RunFolder
from safetraind.rank_speed import speedup
from safetraind.worker.training import adapters, task
from safetraind.worker.training.batches import Batches
from safetraind.worker.training.checkpoint import Checkpoints
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.heartbeat import Heartbeat
from safetraind.worker.training.machine_speed import measured_steps, verdict
from safetraind.worker.training.memory_guard import Guard
from safetraind.worker.training.outcome import run_and_report
from safetraind.worker.training.position import RunPosition
from safetraind.worker.training.prepare import encoder_of, load_model, make_batches
from safetraind.worker.training.ranks import Dismissed, RankLost, Ranks, joined, own_rank
from safetraind.worker.training.schedule import learning_rate
from safetraind.worker.training.step import Stepper
from safetraind.worker.training.task import Task
from safetraind.worker.training.token_files import training_samples

_DONE = "SAFETRAIN_RANK_FD"  # a pipe that tells the other ranks' keepers how this rank ended
Work = Callable[[Task, EventSink, Ranks], Outcome]


def as_rank(run: RunFolder, sink: EventSink, *, train: Work, follow: Work) -> int:
    """Join the other ranks, `train` as rank 0 or else `follow` it. Return the exit code.

    EXIT_RANK: another rank is gone. See `run_and_report` for the rest.
    """
    rank = own_rank()
    heartbeat = Heartbeat(run, leads=rank == 0)
    sink.on_phase = heartbeat.phase
    work = follow if rank else train
    try:
        code = run_and_report(sink, lambda: work(task.read(run), sink, joined(heartbeat)))
    except RankLost as error:
        sys.stderr.write(f"rank {rank}: {error}\n")
        return EXIT_RANK
    heartbeat.ended()
    return code


def follow(job: Task, sink: EventSink, ranks: Ranks) -> Outcome:
    """Take part in each step until rank 0, or another, dismisses all. Writes no file of the run.

    Raises as `train.train`.
    """
    loaded, stepper = load_model(job, sink, ranks)
    progress = _resume(job, stepper)
    sink.phase("tokenizing")
    samples = training_samples(job, encoder_of(loaded, job.plan.settings), progress.first_length)
    batches = make_batches(job, samples, progress, ranks)
    settings = job.plan.settings
    total_steps = settings.total_steps(batches.steps_per_epoch)

    if settings.machines and not progress.step:
        sink.phase("training")
        measured_steps(ranks, stepper, batches)
    ranks.measure(stepper.model.trainable_parameters())
    try:
        with Guard(job.plan, sink) as guard:
            while progress.step < total_steps and not (sink.intent() or guard.before_step()):
                sink.phase("training")
                epoch, place = divmod(progress.step, batches.steps_per_epoch)
                rate = learning_rate(settings, progress.step, total_steps)
                done = stepper.step(batches.window(epoch, place), progress.step, rate)
                if not done.finite:
                    break
                progress.advance(epoch, place, done)
            stepper.leave(progress.step)
    except Dismissed:
        pass
    _say_done()
    return Outcome("succeeded")


def refused_for_the_link(
    job: Task, sink: EventSink, ranks: Ranks, stepper: Stepper, batches: Batches, step: int
) -> Finding | None:
    """Measure a sum over the ranks, and note it with the speed-up that it leaves. On several
    machines, measure a step on each of them, too.

    Return the finding where it takes more time than the ranks could save, and nothing was trained
    yet: even with a machine each they would be slower than one. Raises RankLost.
    """
    machines = job.plan.settings.machines
    if machines and not step:
        sink.phase("training")
        steps = measured_steps(ranks, stepper, batches)
        sent, seconds = ranks.measure(stepper.model.trainable_parameters())
        found = verdict(steps, machines, seconds, sent)
        if found.blocks:
            return found
        sink.emit(Notice(found))
        return None
    sent, seconds = ranks.measure(stepper.model.trainable_parameters())
    plan = job.plan
    args: dict[str, str | int | float] = {"ranks": ranks.size, "bytes": sent, "seconds": seconds}
    if machines or not (plan.tokens_per_second and plan.expected_seconds and plan.total_steps):
        sink.emit(Notice(Finding("train.ranks_sum", args=args)))
        return None
    alone = plan.expected_seconds / plan.total_steps
    factor = speedup(alone, ranks.size, seconds)
    args |= {"alone": alone, "speedup": factor}
    if factor <= 1 and not step:
        return Finding("train.ranks_too_slow", Status.FAILED, True, args)
    sink.emit(Notice(Finding("train.ranks_speedup", args=args)))
    return None


def left_by_another(step: int) -> Outcome:
    """Return rank 0's outcome where another rank left after `step` steps."""
    return Outcome("paused", Finding("train.rank_left", args={"step": step}))


def _resume(job: Task, stepper: Stepper) -> RunPosition:
    """Return the run's position as rank 0 does, but repair and report nothing."""
    progress = Checkpoints(job).load_newest(stepper)
    if progress is None:
        progress = RunPosition()
        if job.spec.start_adapter:
            adapters.start_from(stepper.model, Path(job.spec.start_adapter))
    progress.begin(job.plan.settings)
    return progress


def _say_done() -> None:
    """Tell the other ranks' keepers that this rank ends because there is nothing left to do."""
    if _DONE in os.environ:
        os.write(int(os.environ[_DONE]), b".")

"""Builds the job message that clients see: record, place in the queue, progress, estimates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.evaluations import Evaluation
from safetrain_shared.history import Progress
from safetrain_shared.jobs import FINAL, JobState
from safetrain_shared.paths import RunFolder
from safetrain_shared.wire import fill, finding_to_wire, plan_to_wire, spec_to_wire, state_to_wire
from safetraind.controller.controller import Controller
from safetraind.controller.rank_folders import ranks_in
from safetraind.processes.rank_watch import beats_of
from safetraind.scheduler.queue_estimate import RunOrder, run_order
from safetraind.scheduler.state import Job

Seconds = tuple[float, float, float]  # likely, at best, at worst


class QueueView:
    """The estimates of all jobs at one moment, from data that they share.

    Each part is computed once, on demand, in time linear in the number of jobs.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._scheduler = controller.scheduler

    @cached_property
    def _order(self) -> RunOrder:
        return run_order(self._scheduler)

    def position(self, job: Job) -> int:
        """Return the job's place in the queue, from 1; 0 where it does not wait."""
        return 0 if job.state in FINAL else self._order.positions.get(job.id, 0)

    def evaluation(self, job: Job) -> Evaluation | None:
        """Return the newest verdict on the job's adapter: its own, or that of a job that evaluated
        it.
        """
        later = (self._controller.progress(job_id) for job_id in self._evaluators.get(job.id, ()))
        found = [known.evaluation for known in later if known.evaluation is not None]
        return found[-1] if found else self._controller.progress(job.id).evaluation

    @cached_property
    def _evaluators(self) -> dict[int, list[int]]:
        """The jobs that evaluate each trained job, oldest first, by the trained job's id."""
        evaluators: dict[int, list[int]] = {}
        for job_id, job in sorted(self._scheduler.jobs.items()):
            if job.evaluates:
                trained = self._controller.record(job_id).spec.evaluates
                evaluators.setdefault(trained, []).append(job_id)
        return evaluators

    def before(self, job: Job) -> Seconds | None:
        """Return the seconds until a waiting job starts; None: unknown, as for one that rests."""
        if job.resting:
            return None
        sure, late = self._seconds_before.get(job.id), self._held_seconds_before.get(job.id)
        return None if sure is None or late is None else (sure[0], sure[1], sure[2] + late)

    @cached_property
    def _seconds_before(self) -> dict[int, Seconds]:
        """By job, the seconds of the jobs that run before it for certain, up to the first without
        an estimate.
        """
        before: dict[int, Seconds] = {}
        likely = low = high = 0.0
        for job in self._order.jobs:
            before[job.id] = likely, low, high
            own = self.remaining(job)
            if own is None:
                break
            likely, low, high = likely + own[0], low + own[1], high + own[2]
        return before

    @cached_property
    def _held_seconds_before(self) -> dict[int, float]:
        """By job, the worst-case seconds of the held jobs before it, up to the first without an
        estimate.
        """
        late: dict[int, float] = {}
        held, seconds = iter(self._order.held), 0.0
        place, next_held = next(held, (0, None))
        for job_id, position in self._order.positions.items():  # in the queue's order
            late[job_id] = seconds
            if next_held is not None and position == place:
                own = self.remaining(next_held)
                if own is None:
                    break
                seconds += own[2]
                place, next_held = next(held, (0, None))
        return late

    def remaining(self, job: Job) -> Seconds | None:
        """Return the seconds that the job's training still needs, rests included; None: unknown.

        By its own throughput once it trains. Before, by what its plan expects, give or take a
        third; before it has a plan, by what was predicted at submit, give or take a half.
        """
        progress = self._controller.progress(job.id)
        if job.state is JobState.RUNNING and progress.eta_seconds is not None:
            low, high = progress.eta_range() or (progress.eta_seconds, progress.eta_seconds)
            return progress.eta_seconds, low, high
        expected, doubt = job.plan.expected_seconds if job.plan else 0.0, 1 / 3
        if expected <= 0:
            expected, doubt = self._predicted(job), 1 / 2
        if expected <= 0:
            return None
        total = progress.total_steps
        left = expected * (1 - progress.step / total) if total else expected
        likely, low, high = (
            seconds + self._rest_seconds(job, seconds)
            for seconds in (left, left * (1 - doubt), left * (1 + doubt))
        )
        return likely, low, high

    def _rest_seconds(self, job: Job, training: float) -> float:
        plan = job.plan or self._controller.record(job.id).document.forecast.plan
        return 0.0 if plan is None else plan.settings.rest_seconds(training)

    def _predicted(self, job: Job) -> float:
        """Return the seconds predicted at submit, else an estimate from this model's last known
        speed; 0 where there is neither.
        """
        forecast = self._controller.record(job.id).document.forecast
        if forecast.plan is None:
            return 0.0
        if forecast.plan.expected_seconds:
            return forecast.plan.expected_seconds
        speed = self._speeds.get(forecast.plan.model_path)
        return forecast.tokens / speed if speed else 0.0

    @cached_property
    def _speeds(self) -> dict[str, float]:
        """Tokens a second of the newest plan of each model, by its folder."""
        jobs = sorted(self._scheduler.jobs.values(), key=lambda job: job.id)
        plans = [job.plan for job in jobs if job.plan is not None and job.plan.tokens_per_second]
        return {plan.model_path: plan.tokens_per_second for plan in plans}


def view(controller: Controller, job_id: int, queue: QueueView | None = None) -> jobs_pb2.Job:
    """Return the job as a message; `queue`: shared by the jobs of one list. Raises NotFound."""
    queue = queue or QueueView(controller)
    record, job = controller.record(job_id), controller.job(job_id)
    progress = controller.progress(job_id)
    message = jobs_pb2.Job(
        id=job_id,
        state=state_to_wire(job.state),
        spec=spec_to_wire(record.spec),
        queue_position=queue.position(job),
        created=record.created,
        started=record.started,
        finished=record.finished,
        attempt=job.attempt,
        step=progress.step,
        epoch=progress.epoch,
        total_steps=progress.total_steps or (job.plan.total_steps if job.plan else 0),
        train_loss=progress.train_loss,
        valid_loss=progress.valid_loss,
        best_loss=progress.best_loss,
        base_loss=progress.base_loss,
        phase=_phase(controller, job, progress),
        intent=job.intent,
        last_seq=progress.last_seq,
        log_path=str(controller.home.run(job_id).log),
        after=job.after,
    )
    if progress.answered is not None:
        message.questions_answered = progress.answered.answered
        message.questions_total = progress.answered.total
    if (evaluation := queue.evaluation(job)) is not None:
        message.evaluation.SetInParent()
        fill(message.evaluation, evaluation)
    forecast = record.document.forecast
    if job.plan is not None:
        message.plan.CopyFrom(plan_to_wire(job.plan))
    elif forecast.plan is not None:
        message.forecast.CopyFrom(plan_to_wire(forecast.plan))
    if job.cause is not None:
        message.cause.CopyFrom(finding_to_wire(job.cause))
    message.ranks.extend(_ranks(controller, job))
    _estimate(queue, job, message)
    return message


def _ranks(controller: Controller, job: Job) -> Iterator[jobs_pb2.Rank]:
    """Yield the ranks of a running training that has several, as their heartbeats tell."""
    if job.ranks == 1 or job.state is not JobState.RUNNING:
        return
    now, run = time.monotonic(), controller.home.run(job.id)
    for number, beat in enumerate(beats_of(run, ranks_in(run, job))):
        machine = _machine(run.rank(number))
        if beat is None:
            yield jobs_pb2.Rank(number=number, machine=machine)
            continue
        yield jobs_pb2.Rank(
            number=number,
            machine=machine,
            state=beat.state,
            step=beat.step,
            step_seconds=beat.step_seconds,
            wait_seconds=beat.wait_seconds,
            footprint=beat.footprint,
            peak_memory=beat.peak,
            silent_seconds=max(0.0, now - beat.time),
        )


def _machine(rank: RunFolder) -> str:
    """Return the name of the other machine on which a rank runs; empty for one of this machine."""
    try:
        return rank.machine.read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return ""


def _phase(controller: Controller, job: Job, progress: Progress) -> str:
    """Return an active job's phase, one of `PHASES`; empty for a job in any other state."""
    if job.state is JobState.CHECKING:
        return controller.check_phase
    return progress.phase if job.state is JobState.RUNNING else ""


def model_of(controller: Controller, job_id: int) -> str:
    """Return the folder of the model that the job trains, or the hub's id. Raises NotFound."""
    record, job = controller.record(job_id), controller.job(job_id)
    return job.plan.model_path if job.plan else record.document.model.path


def _estimate(queue: QueueView, job: Job, message: jobs_pb2.Job) -> None:
    """Fill in the estimates that rest on a measurement or a prediction, and no others."""
    if job.state in FINAL or job.state is JobState.PAUSED:
        return
    before = queue.before(job) if message.queue_position else (0.0, 0.0, 0.0)
    if before is None:
        return
    if message.queue_position:
        message.start_eta_seconds = before[0]
        message.start_eta_low_seconds = before[1]
        message.start_eta_high_seconds = before[2]
    own = queue.remaining(job)
    if own is not None:
        message.eta_seconds = before[0] + own[0]
        message.eta_low_seconds = before[1] + own[1]
        message.eta_high_seconds = before[2] + own[2]

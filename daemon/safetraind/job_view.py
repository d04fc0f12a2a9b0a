"""A job as clients see it: record, place in the queue, progress and honest estimates."""

from __future__ import annotations

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.jobs import FINAL, JobState
from safetrain_shared.wire import finding_to_wire, plan_to_wire, spec_to_wire, state_to_wire
from safetraind.controller.controller import Controller
from safetraind.scheduler import queue_estimate
from safetraind.scheduler.state import Job

Seconds = tuple[float, float, float]  # likely, at best, at worst


def view(controller: Controller, job_id: int) -> jobs_pb2.Job:
    """The job as a message. Raises NotFound."""
    record, job = controller.record(job_id), controller.job(job_id)
    progress = controller.progress(job_id)
    message = jobs_pb2.Job(
        id=job_id,
        state=state_to_wire(job.state),
        spec=spec_to_wire(record.spec),
        queue_position=_position(controller, job),
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
        phase=progress.phase if job.state is JobState.RUNNING else "",
        intent=job.intent,
        last_seq=progress.last_seq,
        log_path=str(controller.home.run(job_id).log),
        after=job.after,
    )
    forecast = record.document.forecast
    if job.plan is not None:
        message.plan.CopyFrom(plan_to_wire(job.plan))
    elif forecast.plan is not None:
        message.forecast.CopyFrom(plan_to_wire(forecast.plan))
    if job.cause is not None:
        message.cause.CopyFrom(finding_to_wire(job.cause))
    _estimate(controller, job, message)
    return message


def model_of(controller: Controller, job_id: int) -> str:
    """The folder of the model that the job trains, or the hub's id. Raises NotFound."""
    record, job = controller.record(job_id), controller.job(job_id)
    return job.plan.model_path if job.plan else record.document.model.path


def _position(controller: Controller, job: Job) -> int:
    ids = [other.id for other in controller.scheduler.waiting]
    return ids.index(job.id) + 1 if job.id in ids else 0


def _estimate(controller: Controller, job: Job, message: jobs_pb2.Job) -> None:
    """Fills the estimates in that something was measured or predicted for; no others."""
    if job.state in FINAL or job.state is JobState.PAUSED:
        return
    before = _before(controller, job) if message.queue_position else (0.0, 0.0, 0.0)
    if before is None:
        return
    if message.queue_position:
        message.start_eta_seconds = before[0]
        message.start_eta_low_seconds = before[1]
        message.start_eta_high_seconds = before[2]
    own = remaining(controller, job)
    if own is not None:
        message.eta_seconds = before[0] + own[0]
        message.eta_low_seconds = before[1] + own[1]
        message.eta_high_seconds = before[2] + own[2]


def _before(controller: Controller, job: Job) -> Seconds | None:
    """Seconds until a waiting job starts: likely, at best, at worst; None: unknown."""
    ahead = queue_estimate.ahead_of(controller.scheduler, job)
    if ahead is None:
        return None
    sure = [remaining(controller, other) for other in ahead.sure]
    maybe = [remaining(controller, other) for other in ahead.maybe]
    known = [part for part in sure if part is not None]
    late = [part for part in maybe if part is not None]
    if len(known) + len(late) < len(sure) + len(maybe):
        return None
    likely, low, high = (sum(part[i] for part in known) for i in range(3))
    return likely, low, high + sum(part[2] for part in late)


def remaining(controller: Controller, job: Job) -> Seconds | None:
    """Seconds of training that the job still needs: likely, at best, at worst; None: unknown.

    By its own pace once it trains. Before, by what its plan expects, give or take a third; before
    it has a plan, by what was predicted at submit, give or take a half.
    """
    progress = controller.progress(job.id)
    if job.state is JobState.RUNNING and progress.eta_seconds is not None:
        low, high = progress.eta_range() or (progress.eta_seconds, progress.eta_seconds)
        return progress.eta_seconds, low, high
    expected, doubt = job.plan.expected_seconds if job.plan else 0.0, 1 / 3
    if expected <= 0:
        expected, doubt = _predicted(controller, job), 1 / 2
    if expected <= 0:
        return None
    total = progress.total_steps
    left = expected * (1 - progress.step / total) if total else expected
    return left, left * (1 - doubt), left * (1 + doubt)


def _predicted(controller: Controller, job: Job) -> float:
    """What was predicted at submit, else by the speed at which this model was trained here."""
    forecast = controller.record(job.id).document.forecast
    if forecast.plan is None:
        return 0.0
    if forecast.plan.expected_seconds:
        return forecast.plan.expected_seconds
    speeds = [
        (other.id, other.plan.tokens_per_second)
        for other in controller.scheduler.jobs.values()
        if other.plan
        and other.plan.model_path == forecast.plan.model_path
        and other.plan.tokens_per_second
    ]
    return forecast.tokens / max(speeds)[1] if speeds else 0.0

"""A job as clients see it: record, place in the queue, progress and honest estimates."""

from __future__ import annotations

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.jobs import FINAL, JobState
from safetrain_shared.wire import finding_to_wire, plan_to_wire, spec_to_wire, state_to_wire
from safetraind.conductor import Conductor
from safetraind.jobs.moves import Job


def view(conductor: Conductor, job_id: int) -> jobs_pb2.Job:
    """The job as a message. Raises NotFound."""
    record, job = conductor.record(job_id), conductor.job(job_id)
    progress = conductor.progress(job_id)
    message = jobs_pb2.Job(
        id=job_id,
        state=state_to_wire(job.state),
        spec=spec_to_wire(record.spec),
        queue_position=_position(conductor, job),
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
        log_path=str(conductor.home.run(job_id).log),
        after=job.after,
    )
    if job.plan is not None:
        message.plan.CopyFrom(plan_to_wire(job.plan))
    if job.cause is not None:
        message.cause.CopyFrom(finding_to_wire(job.cause))
    _estimate(conductor, job, message)
    return message


def _position(conductor: Conductor, job: Job) -> int:
    ids = [other.id for other in conductor.house.waiting]
    return ids.index(job.id) + 1 if job.id in ids else 0


def _estimate(conductor: Conductor, job: Job, message: jobs_pb2.Job) -> None:
    """Fills the estimates in that something was measured or predicted for; no others."""
    if job.state in FINAL or job.state is JobState.PAUSED:
        return
    own = remaining(conductor, job)
    before = _before(conductor, job) if message.queue_position else (0.0, 0.0, 0.0)
    if before is not None and message.queue_position:
        message.start_eta_seconds = before[0]
    if own is not None and before is not None:
        message.eta_seconds = before[0] + own[0]
        message.eta_low_seconds = before[1] + own[1]
        message.eta_high_seconds = before[2] + own[2]


def _before(conductor: Conductor, job: Job) -> tuple[float, float, float] | None:
    """Seconds until a waiting job starts: likely, at best, at worst; None: unknown."""
    active, waiting = conductor.house.active, conductor.house.waiting
    ahead = ([active] if active else []) + waiting[: [j.id for j in waiting].index(job.id)]
    parts = [remaining(conductor, other) for other in ahead]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    likely, low, high = (sum(part[i] for part in known) for i in range(3))
    return likely, low, high


def remaining(conductor: Conductor, job: Job) -> tuple[float, float, float] | None:
    """Seconds of training that the job still needs: likely, at best, at worst; None: unknown.

    By its own pace once it trains. Before, by what the plan expects, give or take a third.
    """
    progress = conductor.progress(job.id)
    if job.state is JobState.RUNNING and progress.eta_seconds is not None:
        low, high = progress.eta_range() or (progress.eta_seconds, progress.eta_seconds)
        return progress.eta_seconds, low, high
    expected = job.plan.expected_seconds if job.plan else 0.0
    if expected <= 0:
        return None
    total = progress.total_steps
    left = expected * (1 - progress.step / total) if total else expected
    return left, left * 2 / 3, left * 4 / 3

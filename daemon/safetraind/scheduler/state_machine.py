"""The next state, as a pure function: (state, trigger) → (state, effects).

No I/O and no clock. The state is all jobs and the holder of the GPU lease. A trigger is a user's
request, or an event such as a worker's end. The controller carries the effects out, in their order.

    queued → checking → running → succeeded | failed | cancelled
      ▲         │          │└──▶ interrupted ──▶ running (by itself)
      └─────────┴── paused ◀┘
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from safetrain_shared.errors import AlreadyFinished, Conflict, NotFound
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import FINAL, JobState
from safetraind.scheduler.effects import (
    Check,
    DropLease,
    EmitEvent,
    Forget,
    FreezePlan,
    StopCheck,
    Train,
    WriteIntent,
)
from safetraind.scheduler.state import FREE, HELD, Job, SchedulerState
from safetraind.scheduler.transitions import (
    Decision,
    fulfil_intent,
    head_of_queue,
    moved,
    next_job,
    released,
    take_lease_if_needed,
    with_job,
)
from safetraind.scheduler.triggers import (
    CancelAsked,
    CheckEnded,
    CheckPassed,
    LaunchFailed,
    LeaseTaken,
    MoveAsked,
    PauseAsked,
    Removed,
    ResourcesFound,
    ResumeAsked,
    RetryAsked,
    StopAsked,
    Submitted,
    Trigger,
    WakeUp,
    WorkBroke,
    WorkerEnded,
)
from safetraind.scheduler.worker_end import launch_failed, worker_ended


def decide(scheduler: SchedulerState, trigger: Trigger) -> Decision:
    """Return the state after the trigger, and the effects to carry out.

    Raises NotFound, AlreadyFinished or Conflict for a request that cannot be granted.
    """
    return _HANDLERS[type(trigger)](scheduler, trigger)


def _submitted(scheduler: SchedulerState, trigger: Submitted) -> Decision:
    job = trigger.job
    scheduler = with_job(scheduler, job)
    return take_lease_if_needed(scheduler, [EmitEvent(job.id, job.state)])


def _pause(scheduler: SchedulerState, trigger: PauseAsked) -> Decision:
    job = _live(scheduler, trigger.id)
    if job.state is JobState.PAUSED or job.intent == "cancel":
        return scheduler, []
    return _leave(scheduler, job, "pause", JobState.PAUSED, Finding("job.paused_by_user"))


def _cancel(scheduler: SchedulerState, trigger: CancelAsked) -> Decision:
    job = _live(scheduler, trigger.id)
    return _leave(scheduler, job, "cancel", JobState.CANCELLED, Finding("job.cancelled_by_user"))


def _leave(
    scheduler: SchedulerState, job: Job, intent: str, state: JobState, cause: Finding
) -> Decision:
    """Carry an intent out at once for a job that waits; at its next step or section for one that
    runs.
    """
    if job.state is JobState.RUNNING:
        return with_job(scheduler, job, intent=intent), [WriteIntent(job.id, intent)]
    if job.state is JobState.CHECKING:
        return with_job(scheduler, job, intent=intent), [StopCheck(job.id)]
    return take_lease_if_needed(*moved(scheduler, job, state, cause))


def _resume(scheduler: SchedulerState, trigger: ResumeAsked) -> Decision:
    job = _live(scheduler, trigger.id)
    if job.intent == "pause":
        return with_job(scheduler, job, intent=""), [WriteIntent(job.id, "")]
    if job.state is not JobState.PAUSED:
        raise Conflict("job.not_paused", id=job.id, state=job.state.value)
    scheduler, effects = moved(scheduler, job, JobState.QUEUED, position=head_of_queue(scheduler))
    return take_lease_if_needed(scheduler, effects)


def _retry(scheduler: SchedulerState, trigger: RetryAsked) -> Decision:
    job = _known(scheduler, trigger.id)
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict("job.not_retryable", id=job.id, state=job.state.value)
    tail = max((other.position for other in scheduler.jobs.values()), default=0.0) + 1
    return take_lease_if_needed(
        *moved(scheduler, job, JobState.QUEUED, position=tail, attempts_without_progress=0)
    )


def _move(scheduler: SchedulerState, trigger: MoveAsked) -> Decision:
    job = _live(scheduler, trigger.id)
    if job.state is not JobState.QUEUED:
        raise Conflict("job.not_queued", id=job.id, state=job.state.value)
    tail = max(other.position for other in scheduler.jobs.values()) + 1
    return with_job(
        scheduler, job, position=head_of_queue(scheduler) if trigger.first else tail
    ), []


def _remove(scheduler: SchedulerState, trigger: Removed) -> Decision:
    job = _known(scheduler, trigger.id)
    if job.state not in FINAL:
        raise Conflict("job.live", id=job.id)
    jobs = {job_id: other for job_id, other in scheduler.jobs.items() if job_id != job.id}
    return dataclasses.replace(scheduler, jobs=jobs), [Forget(job.id)]


def _lease_taken(scheduler: SchedulerState, _: LeaseTaken) -> Decision:
    job = next_job(scheduler)
    if job is None or scheduler.stopping:
        return dataclasses.replace(scheduler, lease=FREE), [DropLease()]
    scheduler = dataclasses.replace(scheduler, lease=HELD)
    if job.plan is not None or job.evaluates:
        return _start_training(scheduler, job)
    scheduler, effects = moved(scheduler, job, JobState.CHECKING)
    return scheduler, [*effects, Check(job.id)]


def _check_passed(scheduler: SchedulerState, trigger: CheckPassed) -> Decision:
    job = scheduler.jobs[trigger.id]
    if job.intent or scheduler.stopping:
        return _check_ended(scheduler, CheckEnded(job.id))
    job = dataclasses.replace(job, plan=trigger.plan)
    scheduler, effects = _start_training(scheduler, job)
    return scheduler, [FreezePlan(job.id, trigger.plan), *effects]


def _check_ended(scheduler: SchedulerState, trigger: CheckEnded) -> Decision:
    job = scheduler.jobs[trigger.id]
    if job.intent:
        after = fulfil_intent(scheduler, job)
    elif trigger.cause is not None:
        after = moved(scheduler, job, JobState.FAILED, trigger.cause)
    else:
        after = moved(scheduler, job, JobState.QUEUED, position=head_of_queue(scheduler))
    return released(*after)


def _work_broke(scheduler: SchedulerState, trigger: WorkBroke) -> Decision:
    """Fail that job alone. Lease and queue continue without it."""
    job = scheduler.jobs.get(trigger.id)
    if job is None or job.state in FINAL:
        return take_lease_if_needed(scheduler, [])
    active = scheduler.active
    after = moved(scheduler, job, JobState.FAILED, trigger.cause)
    return (
        released(*after)
        if active is not None and active.id == job.id
        else take_lease_if_needed(*after)
    )


def _resources_found(scheduler: SchedulerState, trigger: ResourcesFound) -> Decision:
    job = scheduler.jobs.get(trigger.id)
    if job is None or not job.held:
        return take_lease_if_needed(scheduler, [])
    return take_lease_if_needed(with_job(scheduler, job, held=False, resting=False), [])


def _woken_up(scheduler: SchedulerState, _: WakeUp) -> Decision:
    return take_lease_if_needed(scheduler, [])


def _stop(scheduler: SchedulerState, trigger: StopAsked) -> Decision:
    scheduler = dataclasses.replace(scheduler, stopping=True)
    job = scheduler.active
    if job is None:
        return scheduler, []
    if job.state is JobState.CHECKING:
        return scheduler, [StopCheck(job.id)]
    # The intent is for the worker alone: the job itself is not paused, and goes on later.
    return scheduler, [WriteIntent(job.id, "pause")] if trigger.now and not job.intent else []


def _start_training(scheduler: SchedulerState, job: Job) -> Decision:
    attempt = job.attempt + 1
    scheduler, effects = moved(scheduler, job, JobState.RUNNING, attempt=attempt)
    return scheduler, [*effects, Train(job.id, attempt)]


def _known(scheduler: SchedulerState, job_id: int) -> Job:
    if job_id not in scheduler.jobs:
        raise NotFound("job.unknown", id=job_id)
    return scheduler.jobs[job_id]


def _live(scheduler: SchedulerState, job_id: int) -> Job:
    job = _known(scheduler, job_id)
    if job.state in FINAL:
        raise AlreadyFinished("job.finished", id=job_id, state=job.state.value)
    return job


_HANDLERS: Mapping[type, Callable[[SchedulerState, Any], Decision]] = {
    Submitted: _submitted,
    PauseAsked: _pause,
    ResumeAsked: _resume,
    CancelAsked: _cancel,
    RetryAsked: _retry,
    MoveAsked: _move,
    Removed: _remove,
    LeaseTaken: _lease_taken,
    CheckPassed: _check_passed,
    CheckEnded: _check_ended,
    WorkerEnded: worker_ended,
    WorkBroke: _work_broke,
    LaunchFailed: launch_failed,
    ResourcesFound: _resources_found,
    WakeUp: _woken_up,
    StopAsked: _stop,
}

"""Moves of a job from one state to another, and when the GPU lease is asked for; pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import FINAL, JobState
from safetraind.scheduler.effects import (
    DropLease,
    Effect,
    EmitEvent,
    TakeLease,
    WaitForResources,
)
from safetraind.scheduler.state import ASKED, FREE, Job, SchedulerState

Decision = tuple[SchedulerState, list[Effect]]


def moved(
    scheduler: SchedulerState,
    job: Job,
    state: JobState,
    cause: Finding | None = None,
    **changes: Any,
) -> Decision:
    """Put the job into a state, clear its intent, and emit the state's event."""
    changes = {"held": False, "resting": False, **changes}
    scheduler = with_job(scheduler, job, state=state, cause=cause, intent="", **changes)
    return scheduler, [EmitEvent(job.id, state, cause)]


def fulfil_intent(scheduler: SchedulerState, job: Job) -> Decision:
    """Cancel or pause a job that no longer runs, as its intent says."""
    if job.intent == "cancel":
        return moved(scheduler, job, JobState.CANCELLED, Finding("job.cancelled_by_user"))
    return moved(scheduler, job, JobState.PAUSED, Finding("job.paused_by_user"))


def held_until_resources(
    scheduler: SchedulerState, job: Job, cause: Finding, memory: int = 0
) -> Decision:
    """Interrupt the job until its disks have room or, if given, `memory` bytes are available."""
    scheduler, effects = moved(scheduler, job, JobState.INTERRUPTED, cause, held=True)
    return scheduler, [*effects, WaitForResources(job.id, memory)]


def released(scheduler: SchedulerState, effects: list[Effect]) -> Decision:
    """Give the lease back, and ask for it again where another job can use it."""
    scheduler = dataclasses.replace(scheduler, lease=FREE)
    return take_lease_if_needed(scheduler, [*effects, DropLease()])


def take_lease_if_needed(scheduler: SchedulerState, effects: list[Effect]) -> Decision:
    """Ask for the lease where it is free and a job could start."""
    if scheduler.lease != FREE or scheduler.stopping or next_job(scheduler) is None:
        return scheduler, effects
    return dataclasses.replace(scheduler, lease=ASKED), [*effects, TakeLease()]


def next_job(scheduler: SchedulerState) -> Job | None:
    """Return the job whose turn it is; None while one is active or rests between two segments."""
    if scheduler.active is not None or any(job.resting for job in scheduler.jobs.values()):
        return None
    return next((job for job in scheduler.waiting if not _waits(scheduler, job)), None)


def _waits(scheduler: SchedulerState, job: Job) -> bool:
    if job.held:
        return True
    other = scheduler.jobs.get(job.after)
    return other is not None and other.state not in FINAL


def head_of_queue(scheduler: SchedulerState) -> float:
    """Return a queue position before all others."""
    return min((job.position for job in scheduler.waiting), default=0.0) - 1


def with_job(scheduler: SchedulerState, job: Job, **changes: Any) -> SchedulerState:
    """Return the state with one job changed."""
    job = dataclasses.replace(job, **changes)
    return dataclasses.replace(scheduler, jobs={**scheduler.jobs, job.id: job})


def gave_up(cause: Finding) -> Finding:
    """Return the cause of a job that failed because its last attempts made no progress."""
    return Finding("job.gave_up", Status.FAILED, args={**cause.args, "cause": cause.code})

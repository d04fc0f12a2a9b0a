"""The consequences of a worker's end, or of one that could not be started; pure."""

from __future__ import annotations

import dataclasses

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobState, Plan
from safetraind.scheduler.effects import Effect, FreezePlan, WaitForResources
from safetraind.scheduler.exit_cause import (
    cause_of,
    died_of_memory,
    died_of_watchdog,
    ended_a_segment,
    lacked_disk,
    left_short_of_memory,
)
from safetraind.scheduler.oom_fallback import next_fallback
from safetraind.scheduler.state import Job, SchedulerState, WorkerExit
from safetraind.scheduler.transitions import (
    Decision,
    fulfil_intent,
    gave_up,
    held_until_resources,
    moved,
    released,
    with_job,
)
from safetraind.scheduler.triggers import LaunchFailed, WorkerEnded

ATTEMPTS_WITHOUT_PROGRESS = 3
# A disk, descriptors or another process stand in the way: the job waits, however long.
_TEMPORARY = frozenset({"disk.full", "disk.refused", "disk.hangs", "job.live", "job.output_busy"})


# Another machine of the training is not there, or not free: it is asked again, however long.
AWAY = frozenset({"machines.unreachable", "machines.busy", "machines.memory"})
AWAY_SECONDS = 20.0
# No other try can succeed.
_LASTING = frozenset(
    {
        "job.output_replaced",
        "machines.versions",
        "machines.older",
        "machines.model",
        "machines.no_model",
        "machines.clock",
        "machines.itself",
    }
)


def worker_ended(scheduler: SchedulerState, trigger: WorkerEnded) -> Decision:
    """Decide the job's next state by its worker's end: done, paused, waiting, resting, failed or
    tried again.
    """
    end = trigger.end
    job = dataclasses.replace(scheduler.jobs[trigger.id], ineffective=end.ineffective)
    if end.outcome in ("succeeded", "cancelled"):
        cause = Finding("job.cancelled_by_user") if end.outcome == "cancelled" else end.cause
        return released(*moved(scheduler, job, JobState(end.outcome), cause))
    if job.intent:
        return released(*fulfil_intent(scheduler, job))
    if lacked_disk(end):
        cause = end.cause or Finding("train.disk_full", Status.WARNING)
        return released(*held_until_resources(scheduler, job, cause))
    if left_short_of_memory(end):
        return released(*_short_of_memory(scheduler, job, end))
    if ended_a_segment(end):
        return released(*_rest(scheduler, job, end))
    if end.outcome == "paused":  # by a signal: this daemon's stop, or a user's
        return released(
            *moved(scheduler, job, JobState.INTERRUPTED, end.cause, attempts_without_progress=0)
        )
    cause = cause_of(end)
    job = dataclasses.replace(job, attempts_without_progress=_attempts_without_progress(job, end))
    if end.outcome == "failed" and not (died_of_memory(end) or died_of_watchdog(end)):
        return released(*moved(scheduler, job, JobState.FAILED, cause))
    return _after_death(scheduler, job, end, cause)


def launch_failed(scheduler: SchedulerState, trigger: LaunchFailed) -> Decision:
    """Wait where another try may succeed; else count the start as an attempt without progress."""
    job = scheduler.jobs[trigger.id]
    if job.intent:
        return released(*fulfil_intent(scheduler, job))
    if trigger.cause.code in _TEMPORARY:
        return released(*held_until_resources(scheduler, job, trigger.cause))
    if trigger.cause.code in AWAY:
        scheduler, effects = moved(scheduler, job, JobState.INTERRUPTED, trigger.cause, held=True)
        return released(scheduler, [*effects, WaitForResources(job.id, seconds=AWAY_SECONDS)])
    if trigger.cause.code in _LASTING:
        return released(*moved(scheduler, job, JobState.FAILED, trigger.cause))
    failures = job.attempts_without_progress + 1
    job = dataclasses.replace(job, attempts_without_progress=failures)
    if failures >= ATTEMPTS_WITHOUT_PROGRESS:
        return released(*moved(scheduler, job, JobState.FAILED, gave_up(trigger.cause)))
    return released(*moved(scheduler, job, JobState.INTERRUPTED, trigger.cause))


def _after_death(scheduler: SchedulerState, job: Job, end: WorkerExit, cause: Finding) -> Decision:
    """Try again, with a smaller step where memory was the cause.

    The third attempt in a row without progress is the last.
    """
    lower = None
    if job.plan is not None and (died_of_memory(end) or _smaller_may_help(job, end)):
        lower = _next_fallback(job, job.plan)
    if lower is not None:
        plan, notice = lower
        scheduler, effects = moved(
            scheduler, job, JobState.INTERRUPTED, cause, plan=plan, attempts_without_progress=0
        )
        return released(scheduler, [*effects, FreezePlan(job.id, plan, notice)])
    if job.attempts_without_progress >= ATTEMPTS_WITHOUT_PROGRESS:
        return released(*moved(scheduler, job, JobState.FAILED, gave_up(cause)))
    return released(*moved(scheduler, job, JobState.INTERRUPTED, cause))


def _attempts_without_progress(job: Job, end: WorkerExit) -> int:
    """Count the attempt, unless the worker was killed with its daemon before it began."""
    if end.checkpointed:
        return 0
    return job.attempts_without_progress + 1 if end.spoke else job.attempts_without_progress


def _rest(scheduler: SchedulerState, job: Job, end: WorkerExit) -> Decision:
    """Leave the GPU idle for a while, for other jobs as well. The job continues after that."""
    seconds = 0.0 if job.plan is None else 60 * job.plan.settings.rest_minutes
    changes = {"held": True, "resting": True, "attempts_without_progress": 0}
    scheduler, effects = moved(scheduler, job, JobState.INTERRUPTED, end.cause, **changes)
    return scheduler, [*effects, WaitForResources(job.id, seconds=seconds)]


def _smaller_may_help(job: Job, end: WorkerExit) -> bool:
    """Return whether smaller steps may help: the machine restarted, or the GPU's watchdog ended the
    worker, twice without progress in between.
    """
    return job.attempts_without_progress > 1 and (end.machine_restarted or died_of_watchdog(end))


def _short_of_memory(scheduler: SchedulerState, job: Job, end: WorkerExit) -> Decision:
    """Wait for memory. A step that was broken off twice is made smaller."""
    cause = end.cause or Finding("train.broke_off", Status.WARNING)
    job = dataclasses.replace(job, attempts_without_progress=_attempts_without_progress(job, end))
    peak = 0 if job.plan is None else job.plan.measured_peak or job.plan.predicted_peak
    needed = int(str(cause.args.get("needed", peak)))
    scheduler, effects = held_until_resources(scheduler, job, cause, memory=needed)
    return (
        _smaller(scheduler, job.id, effects)
        if job.attempts_without_progress > 1
        else (scheduler, effects)
    )


def _smaller(scheduler: SchedulerState, job_id: int, effects: list[Effect]) -> Decision:
    """Apply the next out-of-memory fallback, where there is one."""
    job = scheduler.jobs[job_id]
    lower = job.plan and _next_fallback(job, job.plan)
    if not lower:
        return scheduler, effects
    plan, notice = lower
    scheduler = with_job(scheduler, job, plan=plan, attempts_without_progress=0)
    return scheduler, [*effects, FreezePlan(job.id, plan, notice)]


def _next_fallback(job: Job, plan: Plan) -> tuple[Plan, Finding] | None:
    return next_fallback(plan, allow_shorter=job.allow_shorter, ineffective=job.ineffective)

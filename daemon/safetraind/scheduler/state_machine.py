"""What happens next, as a pure function: (house, stimulus) → (house, instructions).

No I/O and no clock here. The house is all jobs and who has the GPU lease; a stimulus is a user's
wish or something that happened; the instructions are carried out, in their order, by `controller`.
`moves` has the words.

    queued → checking → running → succeeded | failed | cancelled
      ▲         │          │└──▶ interrupted ──▶ running (by itself)
      └─────────┴── paused ◀┘
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from safetrain_shared.errors import EXIT_MEMORY, AlreadyFinished, Conflict, NoRoom, NotFound
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import FINAL, JobState, Plan
from safetraind.scheduler.effects import (
    Check,
    DropLease,
    Effect,
    EmitEvent,
    Forget,
    FreezePlan,
    StopCheck,
    TakeLease,
    Train,
    WaitForResources,
    WriteIntent,
)
from safetraind.scheduler.oom_fallback import step_down
from safetraind.scheduler.state import ASKED, FREE, HELD, Job, SchedulerState, WorkerExit
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
    WorkerEnded,
)

Decision = tuple[SchedulerState, list[Effect]]

ATTEMPTS_WITHOUT_PROGRESS = 3


def decide(scheduler: SchedulerState, trigger: Trigger) -> Decision:
    """The house after the stimulus, and what is to be done.

    Raises NotFound, AlreadyFinished or Conflict for a wish that can't be granted.
    """
    return _HANDLERS[type(trigger)](scheduler, trigger)


def _submitted(scheduler: SchedulerState, trigger: Submitted) -> Decision:
    job = trigger.job
    scheduler = _with(scheduler, job)
    return _go_on(scheduler, [EmitEvent(job.id, job.state)])


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
    """At once for a job that waits; at its next step or section for one at work."""
    if job.state is JobState.RUNNING:
        return _with(scheduler, job, intent=intent), [WriteIntent(job.id, intent)]
    if job.state is JobState.CHECKING:
        return _with(scheduler, job, intent=intent), [StopCheck(job.id)]
    return _go_on(*_moved(scheduler, job, state, cause))


def _resume(scheduler: SchedulerState, trigger: ResumeAsked) -> Decision:
    job = _live(scheduler, trigger.id)
    if job.intent == "pause":
        return _with(scheduler, job, intent=""), [WriteIntent(job.id, "")]
    if job.state is not JobState.PAUSED:
        raise Conflict("job.not_paused", id=job.id, state=job.state.value)
    scheduler, effects = _moved(scheduler, job, JobState.QUEUED, position=_head(scheduler))
    return _go_on(scheduler, effects)


def _retry(scheduler: SchedulerState, trigger: RetryAsked) -> Decision:
    job = _known(scheduler, trigger.id)
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict("job.not_retryable", id=job.id, state=job.state.value)
    tail = max((other.position for other in scheduler.jobs.values()), default=0.0) + 1
    return _go_on(
        *_moved(scheduler, job, JobState.QUEUED, position=tail, attempts_without_progress=0)
    )


def _move(scheduler: SchedulerState, trigger: MoveAsked) -> Decision:
    job = _live(scheduler, trigger.id)
    if job.state is not JobState.QUEUED:
        raise Conflict("job.not_queued", id=job.id, state=job.state.value)
    tail = max(other.position for other in scheduler.jobs.values()) + 1
    return _with(scheduler, job, position=_head(scheduler) if trigger.first else tail), []


def _remove(scheduler: SchedulerState, trigger: Removed) -> Decision:
    job = _known(scheduler, trigger.id)
    if job.state not in FINAL:
        raise Conflict("job.live", id=job.id)
    jobs = {job_id: other for job_id, other in scheduler.jobs.items() if job_id != job.id}
    return dataclasses.replace(scheduler, jobs=jobs), [Forget(job.id)]


def _lease_taken(scheduler: SchedulerState, _: LeaseTaken) -> Decision:
    job = _next(scheduler)
    if job is None or scheduler.stopping:
        return dataclasses.replace(scheduler, lease=FREE), [DropLease()]
    scheduler = dataclasses.replace(scheduler, lease=HELD)
    if job.plan is not None or job.evaluates:
        return _train(scheduler, job)
    scheduler, effects = _moved(scheduler, job, JobState.CHECKING)
    return scheduler, [*effects, Check(job.id)]


def _check_passed(scheduler: SchedulerState, trigger: CheckPassed) -> Decision:
    job = scheduler.jobs[trigger.id]
    if job.intent or scheduler.stopping:
        return _check_ended(scheduler, CheckEnded(job.id))
    job = dataclasses.replace(job, plan=trigger.plan)
    scheduler, effects = _train(scheduler, job)
    return scheduler, [FreezePlan(job.id, trigger.plan), *effects]


def _check_ended(scheduler: SchedulerState, trigger: CheckEnded) -> Decision:
    job = scheduler.jobs[trigger.id]
    if job.intent:
        moved = _granted(scheduler, job)
    elif trigger.cause is not None:
        moved = _moved(scheduler, job, JobState.FAILED, trigger.cause)
    else:
        moved = _moved(scheduler, job, JobState.QUEUED, position=_head(scheduler))
    return _released(*moved)


def _worker_ended(scheduler: SchedulerState, trigger: WorkerEnded) -> Decision:
    end = trigger.end
    job = dataclasses.replace(scheduler.jobs[trigger.id], ineffective=end.ineffective)
    if end.outcome in ("succeeded", "cancelled"):
        cause = Finding("job.cancelled_by_user") if end.outcome == "cancelled" else end.cause
        return _released(*_moved(scheduler, job, JobState(end.outcome), cause))
    if job.intent:
        return _released(*_granted(scheduler, job))
    if _is_disk(end):
        cause = end.cause or Finding("train.disk_full", Status.WARNING)
        return _released(*_held(scheduler, job, cause))
    if _left_short_of_memory(end):
        return _released(*_short_of_memory(scheduler, job, end))
    if _ended_a_segment(end):
        return _released(*_rests(scheduler, job, end))
    if end.outcome == "paused":  # by a signal: of this daemon's stop, or of somebody else
        return _released(
            *_moved(scheduler, job, JobState.INTERRUPTED, end.cause, attempts_without_progress=0)
        )
    cause = _cause(end)
    job = dataclasses.replace(job, attempts_without_progress=_attempts_without_progress(job, end))
    if end.outcome == "failed" and not (died_of_memory(end) or _died_of_watchdog(end)):
        return _released(*_moved(scheduler, job, JobState.FAILED, cause))
    return _after_death(scheduler, job, end, cause)


def _granted(scheduler: SchedulerState, job: Job) -> Decision:
    """What was wished of a job that is no longer at work."""
    if job.intent == "cancel":
        return _moved(scheduler, job, JobState.CANCELLED, Finding("job.cancelled_by_user"))
    return _moved(scheduler, job, JobState.PAUSED, Finding("job.paused_by_user"))


def _after_death(scheduler: SchedulerState, job: Job, end: WorkerExit, cause: Finding) -> Decision:
    """A smaller step where memory was the cause; the third attempt in a row without progress is
    the last.
    """
    lower = None
    if job.plan is not None and (died_of_memory(end) or _smaller_may_help(job, end)):
        lower = _step_down(job, job.plan)
    if lower is not None:
        plan, notice = lower
        scheduler, told = _moved(
            scheduler, job, JobState.INTERRUPTED, cause, plan=plan, attempts_without_progress=0
        )
        return _released(scheduler, [*told, FreezePlan(job.id, plan, notice)])
    if job.attempts_without_progress >= ATTEMPTS_WITHOUT_PROGRESS:
        return _released(*_moved(scheduler, job, JobState.FAILED, _gave_up(cause)))
    return _released(*_moved(scheduler, job, JobState.INTERRUPTED, cause))


def _gave_up(cause: Finding) -> Finding:
    return Finding("job.gave_up", Status.FAILED, args={**cause.args, "cause": cause.code})


def _attempts_without_progress(job: Job, end: WorkerExit) -> int:
    """A worker that was killed together with its daemon before it began counts for nothing."""
    if end.checkpointed:
        return 0
    return job.attempts_without_progress + 1 if end.spoke else job.attempts_without_progress


def died_of_memory(end: WorkerExit) -> bool:
    """Whether the worker died of memory.

    By the kernel's own count, or by what was seen just before: a failed allocation of MLX on a
    CPU is a SIGSEGV, a Metal abort a SIGABRT.
    """
    if end.outcome == "failed":
        return end.cause is not None and end.cause.code in _MEMORY_CODES
    return end.oom_kills > 0 or end.memory_short


def _ended_a_segment(end: WorkerExit) -> bool:
    """Whether the worker left at the end of a segment, see the setting `segment_minutes`."""
    return end.outcome == "paused" and end.cause is not None and end.cause.code == "train.segment"


def _rests(scheduler: SchedulerState, job: Job, end: WorkerExit) -> Decision:
    """The GPU rests, for other jobs as well, and then the job goes on."""
    seconds = 0.0 if job.plan is None else 60 * job.plan.settings.rest_minutes
    changes = {"held": True, "resting": True, "attempts_without_progress": 0}
    scheduler, told = _moved(scheduler, job, JobState.INTERRUPTED, end.cause, **changes)
    return scheduler, [*told, WaitForResources(job.id, seconds=seconds)]


def _is_disk(end: WorkerExit) -> bool:
    """Whether the worker left because a disk was full or could only be read. Where it had no room
    even for its last word, its exit code says so.
    """
    if end.outcome == "paused":
        return end.cause is not None and end.cause.code in _DISK_CODES
    return not end.outcome and end.code == NoRoom.exit_code


_DISK_CODES = frozenset({"train.disk_full", "train.disk_read_only"})
# A disk, descriptors or another process stand in the way: the job waits, however long.
_NOT_OUR_FAULT = frozenset({"disk.full", "disk.refused", "job.live", "job.output_busy"})
_MEMORY_CODES = frozenset({"job.out_of_memory"})
_WATCHDOG = "job.gpu_watchdog"


def _died_of_watchdog(end: WorkerExit) -> bool:
    """Whether the GPU's watchdog ended the worker's work: a display was waiting for the GPU."""
    return end.outcome == "failed" and end.cause is not None and end.cause.code == _WATCHDOG


def _smaller_may_help(job: Job, end: WorkerExit) -> bool:
    """What ends a step that is too long or too large, where it comes twice without progress: the
    machine restarts, or the GPU's watchdog bites although the job went on unchanged first.
    """
    return job.attempts_without_progress > 1 and (end.machine_restarted or _died_of_watchdog(end))


def _cause(end: WorkerExit) -> Finding:
    if end.outcome == "failed" and end.cause is not None:
        return end.cause
    if end.machine_restarted and end.panic:
        return Finding("job.kernel_panic", Status.WARNING, args={"path": end.panic})
    if end.machine_restarted:
        return Finding("job.machine_restarted", Status.WARNING)
    if died_of_memory(end):
        return Finding("job.out_of_memory", Status.WARNING)
    if end.signal:
        return Finding("job.worker_killed", Status.WARNING, args={"signal": end.signal})
    if end.code:
        return Finding(
            "job.worker_crashed", Status.WARNING, args={"code": end.code, "log": end.log}
        )
    return Finding("job.worker_lost", Status.WARNING)


def _short_of_memory(scheduler: SchedulerState, job: Job, end: WorkerExit) -> Decision:
    """Waits for memory. A step that had to be broken off twice comes back smaller."""
    cause = end.cause or Finding("train.broke_off", Status.WARNING)
    job = dataclasses.replace(job, attempts_without_progress=_attempts_without_progress(job, end))
    peak = 0 if job.plan is None else job.plan.measured_peak or job.plan.predicted_peak
    needed = int(str(cause.args.get("needed", peak)))
    scheduler, told = _held(scheduler, job, cause, memory=needed)
    return (
        _smaller(scheduler, job.id, told)
        if job.attempts_without_progress > 1
        else (scheduler, told)
    )


def _smaller(scheduler: SchedulerState, job_id: int, told: list[Effect]) -> Decision:
    """One rung down, where there is one."""
    job = scheduler.jobs[job_id]
    lower = job.plan and _step_down(job, job.plan)
    if not lower:
        return scheduler, told
    plan, notice = lower
    return _with(scheduler, job, plan=plan), [*told, FreezePlan(job.id, plan, notice)]


def _step_down(job: Job, plan: Plan) -> tuple[Plan, Finding] | None:
    return step_down(plan, allow_shorter=job.allow_shorter, ineffective=job.ineffective)


def _left_short_of_memory(end: WorkerExit) -> bool:
    """Whether the worker left because the system was short of memory, at a step's end or in one."""
    if end.outcome == "paused":
        return end.cause is not None and end.cause.code == "train.memory_short"
    return not end.outcome and end.code == EXIT_MEMORY


def _launch_failed(scheduler: SchedulerState, trigger: LaunchFailed) -> Decision:
    job = scheduler.jobs[trigger.id]
    if job.intent:
        return _released(*_granted(scheduler, job))
    if trigger.cause.code in _NOT_OUR_FAULT:
        return _released(*_held(scheduler, job, trigger.cause))
    failures = job.attempts_without_progress + 1
    job = dataclasses.replace(job, attempts_without_progress=failures)
    if failures >= ATTEMPTS_WITHOUT_PROGRESS:
        return _released(*_moved(scheduler, job, JobState.FAILED, _gave_up(trigger.cause)))
    return _released(*_moved(scheduler, job, JobState.INTERRUPTED, trigger.cause))


def _held(scheduler: SchedulerState, job: Job, cause: Finding, memory: int = 0) -> Decision:
    scheduler, told = _moved(scheduler, job, JobState.INTERRUPTED, cause, held=True)
    return scheduler, [*told, WaitForResources(job.id, memory)]


def _room_found(scheduler: SchedulerState, trigger: ResourcesFound) -> Decision:
    job = scheduler.jobs.get(trigger.id)
    if job is None or not job.held:
        return _go_on(scheduler, [])
    return _go_on(_with(scheduler, job, held=False, resting=False), [])


def _woken(scheduler: SchedulerState, _: WakeUp) -> Decision:
    return _go_on(scheduler, [])


def _stop(scheduler: SchedulerState, trigger: StopAsked) -> Decision:
    scheduler = dataclasses.replace(scheduler, stopping=True)
    job = scheduler.active
    if job is None:
        return scheduler, []
    if job.state is JobState.CHECKING:
        return scheduler, [StopCheck(job.id)]
    # The intent is for the worker alone: the job itself is not paused, and goes on later.
    return scheduler, [WriteIntent(job.id, "pause")] if trigger.now and not job.intent else []


def _train(scheduler: SchedulerState, job: Job) -> Decision:
    attempt = job.attempt + 1
    scheduler, effects = _moved(scheduler, job, JobState.RUNNING, attempt=attempt)
    return scheduler, [*effects, Train(job.id, attempt)]


def _moved(
    scheduler: SchedulerState,
    job: Job,
    state: JobState,
    cause: Finding | None = None,
    **changes: Any,
) -> Decision:
    """The job in its new state, and the event that tells it. Its intent is thereby carried out."""
    changes = {"held": False, "resting": False, **changes}
    scheduler = _with(scheduler, job, state=state, cause=cause, intent="", **changes)
    return scheduler, [EmitEvent(job.id, state, cause)]


def _released(scheduler: SchedulerState, effects: list[Effect]) -> Decision:
    scheduler = dataclasses.replace(scheduler, lease=FREE)
    return _go_on(scheduler, [*effects, DropLease()])


def _go_on(scheduler: SchedulerState, effects: list[Effect]) -> Decision:
    """Asks for the lease when somebody could use it."""
    if scheduler.lease != FREE or scheduler.stopping or _next(scheduler) is None:
        return scheduler, effects
    return dataclasses.replace(scheduler, lease=ASKED), [*effects, TakeLease()]


def _next(scheduler: SchedulerState) -> Job | None:
    if scheduler.active is not None or any(job.resting for job in scheduler.jobs.values()):
        return None
    return next((job for job in scheduler.waiting if not _waits(scheduler, job)), None)


def _waits(scheduler: SchedulerState, job: Job) -> bool:
    if job.held:
        return True
    other = scheduler.jobs.get(job.after)
    return other is not None and other.state not in FINAL


def _head(scheduler: SchedulerState) -> float:
    return min((job.position for job in scheduler.waiting), default=0.0) - 1


def _with(scheduler: SchedulerState, job: Job, **changes: Any) -> SchedulerState:
    job = dataclasses.replace(job, **changes)
    return dataclasses.replace(scheduler, jobs={**scheduler.jobs, job.id: job})


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
    WorkerEnded: _worker_ended,
    LaunchFailed: _launch_failed,
    ResourcesFound: _room_found,
    WakeUp: _woken,
    StopAsked: _stop,
}

"""What happens next, as a pure function: (house, stimulus) → (house, instructions).

No I/O and no clock here. The house is all jobs and who has the GPU lease; a stimulus is a user's
wish or something that happened; the instructions are carried out, in their order, by `conductor`.
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
from safetraind.jobs.ladder import step_down
from safetraind.jobs.moves import (
    ASKED,
    FREE,
    HELD,
    AwaitRoom,
    CancelAsked,
    Check,
    CheckEnded,
    CheckPassed,
    DropLease,
    End,
    Forget,
    Freeze,
    House,
    Instruction,
    Intend,
    Job,
    LaunchFailed,
    LeaseTaken,
    MoveAsked,
    PauseAsked,
    Removed,
    ResumeAsked,
    RetryAsked,
    RoomFound,
    Stimulus,
    StopAsked,
    StopCheck,
    Submitted,
    TakeLease,
    Tell,
    Train,
    Woken,
    WorkerEnded,
)

Decision = tuple[House, list[Instruction]]

ATTEMPTS_WITHOUT_PROGRESS = 3


def decide(house: House, stimulus: Stimulus) -> Decision:
    """The house after the stimulus, and what is to be done.

    Raises NotFound, AlreadyFinished or Conflict for a wish that can't be granted.
    """
    return _HANDLERS[type(stimulus)](house, stimulus)


def _submitted(house: House, stimulus: Submitted) -> Decision:
    job = stimulus.job
    house = _with(house, job)
    return _go_on(house, [Tell(job.id, job.state)])


def _pause(house: House, stimulus: PauseAsked) -> Decision:
    job = _live(house, stimulus.id)
    if job.state is JobState.PAUSED or job.intent == "cancel":
        return house, []
    return _leave(house, job, "pause", JobState.PAUSED, Finding("job.paused_by_user"))


def _cancel(house: House, stimulus: CancelAsked) -> Decision:
    job = _live(house, stimulus.id)
    return _leave(house, job, "cancel", JobState.CANCELLED, Finding("job.cancelled_by_user"))


def _leave(house: House, job: Job, intent: str, state: JobState, cause: Finding) -> Decision:
    """At once for a job that waits; at its next step or section for one at work."""
    if job.state is JobState.RUNNING:
        return _with(house, job, intent=intent), [Intend(job.id, intent)]
    if job.state is JobState.CHECKING:
        return _with(house, job, intent=intent), [StopCheck(job.id)]
    return _go_on(*_moved(house, job, state, cause))


def _resume(house: House, stimulus: ResumeAsked) -> Decision:
    job = _live(house, stimulus.id)
    if job.intent == "pause":
        return _with(house, job, intent=""), [Intend(job.id, "")]
    if job.state is not JobState.PAUSED:
        raise Conflict("job.not_paused", id=job.id, state=job.state.value)
    house, instructions = _moved(house, job, JobState.QUEUED, position=_head(house))
    return _go_on(house, instructions)


def _retry(house: House, stimulus: RetryAsked) -> Decision:
    job = _known(house, stimulus.id)
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict("job.not_retryable", id=job.id, state=job.state.value)
    tail = max((other.position for other in house.jobs.values()), default=0.0) + 1
    return _go_on(*_moved(house, job, JobState.QUEUED, position=tail, fruitless=0))


def _move(house: House, stimulus: MoveAsked) -> Decision:
    job = _live(house, stimulus.id)
    if job.state is not JobState.QUEUED:
        raise Conflict("job.not_queued", id=job.id, state=job.state.value)
    tail = max(other.position for other in house.jobs.values()) + 1
    return _with(house, job, position=_head(house) if stimulus.first else tail), []


def _remove(house: House, stimulus: Removed) -> Decision:
    job = _known(house, stimulus.id)
    if job.state not in FINAL:
        raise Conflict("job.live", id=job.id)
    jobs = {job_id: other for job_id, other in house.jobs.items() if job_id != job.id}
    return dataclasses.replace(house, jobs=jobs), [Forget(job.id)]


def _lease_taken(house: House, _: LeaseTaken) -> Decision:
    job = _next(house)
    if job is None or house.stopping:
        return dataclasses.replace(house, lease=FREE), [DropLease()]
    house = dataclasses.replace(house, lease=HELD)
    if job.plan is not None:
        return _train(house, job)
    house, instructions = _moved(house, job, JobState.CHECKING)
    return house, [*instructions, Check(job.id)]


def _check_passed(house: House, stimulus: CheckPassed) -> Decision:
    job = house.jobs[stimulus.id]
    if job.intent or house.stopping:
        return _check_ended(house, CheckEnded(job.id))
    job = dataclasses.replace(job, plan=stimulus.plan)
    house, instructions = _train(house, job)
    return house, [Freeze(job.id, stimulus.plan), *instructions]


def _check_ended(house: House, stimulus: CheckEnded) -> Decision:
    job = house.jobs[stimulus.id]
    if job.intent:
        moved = _granted(house, job)
    elif stimulus.cause is not None:
        moved = _moved(house, job, JobState.FAILED, stimulus.cause)
    else:
        moved = _moved(house, job, JobState.QUEUED, position=_head(house))
    return _released(*moved)


def _worker_ended(house: House, stimulus: WorkerEnded) -> Decision:
    end = stimulus.end
    job = dataclasses.replace(house.jobs[stimulus.id], useless=end.useless)
    if end.outcome in ("succeeded", "cancelled"):
        cause = Finding("job.cancelled_by_user") if end.outcome == "cancelled" else end.cause
        return _released(*_moved(house, job, JobState(end.outcome), cause))
    if job.intent:
        return _released(*_granted(house, job))
    if _is_disk(end):
        cause = end.cause or Finding("train.disk_full", Status.WARNING)
        return _released(*_held(house, job, cause))
    if _left_memory(end):
        return _released(*_short_of_memory(house, job, end))
    if end.outcome == "paused":  # by a signal: of this daemon's stop, or of somebody else
        return _released(*_moved(house, job, JobState.INTERRUPTED, end.cause, fruitless=0))
    cause = _cause(end)
    job = dataclasses.replace(job, fruitless=_fruitless(job, end))
    if end.outcome == "failed" and not died_of_memory(end):
        return _released(*_moved(house, job, JobState.FAILED, cause))
    return _after_death(house, job, end, cause)


def _granted(house: House, job: Job) -> Decision:
    """What was wished of a job that is no longer at work."""
    if job.intent == "cancel":
        return _moved(house, job, JobState.CANCELLED, Finding("job.cancelled_by_user"))
    return _moved(house, job, JobState.PAUSED, Finding("job.paused_by_user"))


def _after_death(house: House, job: Job, end: End, cause: Finding) -> Decision:
    """A smaller step where memory was the cause; the third fruitless attempt is the last."""
    lower = None
    if job.plan is not None and (died_of_memory(end) or _is_suspected(job, end)):
        lower = _step_down(job, job.plan)
    if lower is not None:
        plan, notice = lower
        house, told = _moved(house, job, JobState.INTERRUPTED, cause, plan=plan, fruitless=0)
        return _released(house, [*told, Freeze(job.id, plan, notice)])
    if job.fruitless >= ATTEMPTS_WITHOUT_PROGRESS:
        gave_up = Finding("job.gave_up", Status.FAILED, args={**cause.args, "cause": cause.code})
        return _released(*_moved(house, job, JobState.FAILED, gave_up))
    return _released(*_moved(house, job, JobState.INTERRUPTED, cause))


def _fruitless(job: Job, end: End) -> int:
    """A worker that was killed together with its daemon before it began counts for nothing."""
    if end.checkpointed:
        return 0
    return job.fruitless + 1 if end.spoke else job.fruitless


def died_of_memory(end: End) -> bool:
    """Whether the worker died of memory.

    By the kernel's own count, or by what was seen just before: a failed allocation of MLX on a
    CPU is a SIGSEGV, a Metal abort a SIGABRT.
    """
    if end.outcome == "failed":
        return end.cause is not None and end.cause.code in _MEMORY_CODES
    return end.oom_kills > 0 or end.memory_short


def _is_disk(end: End) -> bool:
    """Whether the worker left because a disk was full or could only be read. Where it had no room
    even for its last word, its exit code says so.
    """
    if end.outcome == "paused":
        return end.cause is not None and end.cause.code in _DISK_CODES
    return not end.outcome and end.code == NoRoom.exit_code


_DISK_CODES = frozenset({"train.disk_full", "train.disk_read_only"})
_MEMORY_CODES = frozenset({"job.out_of_memory", "job.gpu_watchdog"})


def _is_suspected(job: Job, end: End) -> bool:
    """A machine that restarts twice in mid-training, without progress, has run out of memory."""
    return end.machine_restarted and job.fruitless > 1


def _cause(end: End) -> Finding:
    if end.outcome == "failed" and end.cause is not None:
        return end.cause
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


def _short_of_memory(house: House, job: Job, end: End) -> Decision:
    """Waits for memory. A step that had to be broken off twice comes back smaller."""
    cause = end.cause or Finding("train.broke_off", Status.WARNING)
    job = dataclasses.replace(job, fruitless=_fruitless(job, end))
    peak = 0 if job.plan is None else job.plan.measured_peak or job.plan.predicted_peak
    needed = int(str(cause.args.get("needed", peak)))
    house, told = _held(house, job, cause, memory=needed)
    return _smaller(house, job.id, told) if job.fruitless > 1 else (house, told)


def _smaller(house: House, job_id: int, told: list[Instruction]) -> Decision:
    """One rung down, where there is one."""
    job = house.jobs[job_id]
    lower = job.plan and _step_down(job, job.plan)
    if not lower:
        return house, told
    plan, notice = lower
    return _with(house, job, plan=plan), [*told, Freeze(job.id, plan, notice)]


def _step_down(job: Job, plan: Plan) -> tuple[Plan, Finding] | None:
    return step_down(plan, allow_shorter=job.allow_shorter, useless=job.useless)


def _left_memory(end: End) -> bool:
    """Whether the worker left because the system was short of memory, at a step's end or in one."""
    if end.outcome == "paused":
        return end.cause is not None and end.cause.code == "train.memory_short"
    return not end.outcome and end.code == EXIT_MEMORY


def _launch_failed(house: House, stimulus: LaunchFailed) -> Decision:
    job = house.jobs[stimulus.id]
    moved = _granted(house, job) if job.intent else _held(house, job, stimulus.cause)
    return _released(*moved)


def _held(house: House, job: Job, cause: Finding, memory: int = 0) -> Decision:
    house, told = _moved(house, job, JobState.INTERRUPTED, cause, held=True)
    return house, [*told, AwaitRoom(job.id, memory)]


def _room_found(house: House, stimulus: RoomFound) -> Decision:
    job = house.jobs.get(stimulus.id)
    if job is None or not job.held:
        return _go_on(house, [])
    house = _with(house, job, held=False)
    return _go_on(*((house, []) if stimulus.enough else _smaller(house, job.id, [])))


def _woken(house: House, _: Woken) -> Decision:
    return _go_on(house, [])


def _stop(house: House, stimulus: StopAsked) -> Decision:
    house = dataclasses.replace(house, stopping=True)
    job = house.active
    if job is None:
        return house, []
    if job.state is JobState.CHECKING:
        return house, [StopCheck(job.id)]
    # The intent is for the worker alone: the job itself is not paused, and goes on later.
    return house, [Intend(job.id, "pause")] if stimulus.now and not job.intent else []


def _train(house: House, job: Job) -> Decision:
    attempt = job.attempt + 1
    house, instructions = _moved(house, job, JobState.RUNNING, attempt=attempt)
    return house, [*instructions, Train(job.id, attempt)]


def _moved(
    house: House, job: Job, state: JobState, cause: Finding | None = None, **changes: Any
) -> Decision:
    """The job in its new state, and the event that tells it. Its intent is thereby carried out."""
    changes = {"held": False, **changes}
    house = _with(house, job, state=state, cause=cause, intent="", **changes)
    return house, [Tell(job.id, state, cause)]


def _released(house: House, instructions: list[Instruction]) -> Decision:
    house = dataclasses.replace(house, lease=FREE)
    return _go_on(house, [*instructions, DropLease()])


def _go_on(house: House, instructions: list[Instruction]) -> Decision:
    """Asks for the lease when somebody could use it."""
    if house.lease != FREE or house.stopping or _next(house) is None:
        return house, instructions
    return dataclasses.replace(house, lease=ASKED), [*instructions, TakeLease()]


def _next(house: House) -> Job | None:
    if house.active is not None:
        return None
    return next((job for job in house.waiting if not _waits(house, job)), None)


def _waits(house: House, job: Job) -> bool:
    if job.held:
        return True
    other = house.jobs.get(job.after)
    return other is not None and other.state not in FINAL


def _head(house: House) -> float:
    return min((job.position for job in house.waiting), default=0.0) - 1


def _with(house: House, job: Job, **changes: Any) -> House:
    job = dataclasses.replace(job, **changes)
    return dataclasses.replace(house, jobs={**house.jobs, job.id: job})


def _known(house: House, job_id: int) -> Job:
    if job_id not in house.jobs:
        raise NotFound("job.unknown", id=job_id)
    return house.jobs[job_id]


def _live(house: House, job_id: int) -> Job:
    job = _known(house, job_id)
    if job.state in FINAL:
        raise AlreadyFinished("job.finished", id=job_id, state=job.state.value)
    return job


_HANDLERS: Mapping[type, Callable[[House, Any], Decision]] = {
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
    RoomFound: _room_found,
    Woken: _woken,
    StopAsked: _stop,
}

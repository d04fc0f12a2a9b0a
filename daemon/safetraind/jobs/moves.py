"""The words of `machine`: the house and its jobs, what can happen, what can be done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState, Plan

FREE, ASKED, HELD = "free", "asked", "held"


@dataclass(frozen=True, slots=True)
class Job:
    """What decides about a job.

    `position` orders the queue, the lowest first. `fruitless` counts the attempts in a row that
    died without a new checkpoint. `plan` is there once it is frozen. `held`: an interrupted job
    that waits for room on a disk or in memory. `useless`: rungs of the ladder, by their settings,
    that would not save it memory.
    """

    id: int
    state: JobState = JobState.QUEUED
    position: float = 0.0
    after: int = 0
    attempt: int = 0
    intent: str = ""
    fruitless: int = 0
    cause: Finding | None = None
    plan: Plan | None = None
    allow_shorter: bool = False
    held: bool = False
    useless: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class House:
    """All jobs by id, who has the lease (free, asked for, held), and whether the daemon stops."""

    jobs: Mapping[int, Job] = field(default_factory=dict)
    lease: str = FREE
    stopping: bool = False

    @property
    def active(self) -> Job | None:
        """The one job that is being checked or trained."""
        busy = (JobState.CHECKING, JobState.RUNNING)
        return next((job for job in self.jobs.values() if job.state in busy), None)

    @property
    def waiting(self) -> list[Job]:
        """Jobs that want to start, in the order in which they will; all but those that wait for
        another job's end could start now.
        """
        turns = {JobState.INTERRUPTED: 0, JobState.QUEUED: 1}
        jobs = [job for job in self.jobs.values() if job.state in turns]
        return sorted(jobs, key=lambda job: (turns[job.state], job.position, job.id))


@dataclass(frozen=True, slots=True)
class End:
    """How a worker ended: its last word, if it had one, and what its keeper wrote.

    `spoke`: it sent at least one event in this attempt, or the keeper saw it end.
    `memory_short`: it was killed, and what was seen just before speaks for memory as the cause.
    `useless`: what it said of the ladder's rungs, see `Job`.
    """

    outcome: str = ""
    cause: Finding | None = None
    checkpointed: bool = False
    spoke: bool = False
    code: int = 0
    signal: int = 0
    oom_kills: int = 0
    memory_short: bool = False
    machine_restarted: bool = False
    log: str = ""
    useless: frozenset[str] = frozenset()


# Stimuli: wishes of a user, then what happened.


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job was accepted."""

    job: Job


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """Pause: give the machine back at the next step."""

    id: int


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """A paused job goes to the head of the queue."""

    id: int


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """End the job at the next step."""

    id: int


@dataclass(frozen=True, slots=True)
class RetryAsked:
    """A failed or cancelled job goes on from its last checkpoint."""

    id: int


@dataclass(frozen=True, slots=True)
class MoveAsked:
    """A waiting job goes first, or last."""

    id: int
    first: bool


@dataclass(frozen=True, slots=True)
class Removed:
    """Forget a job that has ended."""

    id: int


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """The GPU is ours."""


@dataclass(frozen=True, slots=True)
class CheckPassed:
    """The probe is done and the plan is made."""

    id: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class CheckEnded:
    """The check ended without a plan: refused for a cause, or broken off (no cause)."""

    id: int
    cause: Finding | None = None


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """The training's worker is gone."""

    id: int
    end: End


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """Its worker, or its check, could not go on, e.g. for a full disk. The job is held."""

    id: int
    cause: Finding


@dataclass(frozen=True, slots=True)
class RoomFound:
    """A held job may be tried again; `enough`: what it waited for has come."""

    id: int
    enough: bool = True


@dataclass(frozen=True, slots=True)
class Woken:
    """Look whether something can start."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The daemon stops; `now`: the training too."""

    now: bool


Stimulus = (
    Submitted
    | PauseAsked
    | ResumeAsked
    | CancelAsked
    | RetryAsked
    | MoveAsked
    | Removed
    | LeaseTaken
    | CheckPassed
    | CheckEnded
    | WorkerEnded
    | LaunchFailed
    | RoomFound
    | Woken
    | StopAsked
)


# Instructions.


@dataclass(frozen=True, slots=True)
class Tell:
    """Write the job's new state to its story."""

    id: int
    state: JobState
    cause: Finding | None = None


@dataclass(frozen=True, slots=True)
class TakeLease:
    """Ask guests (a warm answering worker) to leave, and wait for the lease."""


@dataclass(frozen=True, slots=True)
class DropLease:
    """Nobody needs it."""


@dataclass(frozen=True, slots=True)
class Check:
    """Probe and plan, holding the lease."""

    id: int


@dataclass(frozen=True, slots=True)
class StopCheck:
    """Break the check off."""

    id: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """Write the plan down and tell it; `notice` says what a back-off changed."""

    id: int
    plan: Plan
    notice: Finding | None = None


@dataclass(frozen=True, slots=True)
class Train:
    """Start the training worker and hand it the lease."""

    id: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Intend:
    """Leave `pause` or `cancel` for the worker; the empty word takes it back."""

    id: int
    intent: str


@dataclass(frozen=True, slots=True)
class AwaitRoom:
    """Tell when a held job has room again: `memory` bytes of it, or with 0 on its disks."""

    id: int
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete the job and its run folder."""

    id: int


Instruction = (
    Tell | TakeLease | DropLease | Check | StopCheck | Freeze | Train | Intend | AwaitRoom | Forget
)

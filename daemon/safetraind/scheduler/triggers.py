"""Triggers of the scheduler: requests of users, and what happened to a worker."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import Plan
from safetraind.scheduler.state import Job, WorkerExit


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job was accepted."""

    job: Job


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """Pause the job, and free the GPU, at the next step."""

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
    """A failed or cancelled job continues from its last checkpoint."""

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
    """The daemon holds the GPU lease."""


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
    end: WorkerExit


@dataclass(frozen=True, slots=True)
class WorkBroke:
    """Something unforeseen broke the daemon's own work on a job, whose worker is gone."""

    id: int
    cause: Finding


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """A job's worker, or its check, could not continue, e.g. for a full disk. The job is held."""

    id: int
    cause: Finding


@dataclass(frozen=True, slots=True)
class ResourcesFound:
    """A held job may be tried again: its resources are there, or the longest wait is over."""

    id: int


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Look whether something can start."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The daemon stops; `now`: the training too."""

    now: bool


Trigger = (
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
    | WorkBroke
    | LaunchFailed
    | ResourcesFound
    | WakeUp
    | StopAsked
)

"""Effects that the scheduler asks for; the controller carries them out, in their order."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState, Plan


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """Write the job's new state into its event file."""

    id: int
    state: JobState
    cause: Finding | None = None


@dataclass(frozen=True, slots=True)
class TakeLease:
    """Ask borrowers (the inference server) to leave, and wait for the lease."""


@dataclass(frozen=True, slots=True)
class DropLease:
    """Give the lease back."""


@dataclass(frozen=True, slots=True)
class Check:
    """Probe and plan, holding the lease."""

    id: int


@dataclass(frozen=True, slots=True)
class StopCheck:
    """Break the check off."""

    id: int


@dataclass(frozen=True, slots=True)
class FreezePlan:
    """Write `plan.json` and its event. `notice`: the finding on a fallback's change."""

    id: int
    plan: Plan
    notice: Finding | None = None


@dataclass(frozen=True, slots=True)
class Train:
    """Start the worker that trains or evaluates, and hand it the lease."""

    id: int
    attempt: int


@dataclass(frozen=True, slots=True)
class WriteIntent:
    """Write `pause` or `cancel` for the worker; an empty intent takes it back."""

    id: int
    intent: str


@dataclass(frozen=True, slots=True)
class WaitForResources:
    """Report when a held job may continue: once `memory` bytes are available, else after a rest of
    `seconds`, else when its disks have room.
    """

    id: int
    memory: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete the job and its run folder."""

    id: int


Effect = (
    EmitEvent
    | TakeLease
    | DropLease
    | Check
    | StopCheck
    | FreezePlan
    | Train
    | WriteIntent
    | WaitForResources
    | Forget
)

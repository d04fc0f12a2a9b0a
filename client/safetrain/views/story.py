"""A job's story so far: events folded into what a view, a plot or a table needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from safetrain.views.interruptions import Interruptions
from safetrain_shared import events
from safetrain_shared.events import CheckpointSaved, Evaluated, Event, StepDone
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState, Plan

_Entry = TypeVar("_Entry", StepDone, Evaluated)


@dataclass
class Story:
    """What is known after the events taken so far.

    `steps` and `evaluations` hold one entry a step: where a step ran again after a kill, the last.
    Times are seconds since the epoch, UTC.
    """

    state: JobState | None = None
    cause: Finding | None = None
    phase: str = ""
    plan: Plan | None = None
    attempt: int = 0
    last_time: float = 0.0
    steps: list[StepDone] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    checkpoint: CheckpointSaved | None = None
    notices: list[tuple[float, Finding]] = field(default_factory=list)
    interruptions: Interruptions = field(default_factory=Interruptions)
    holding: Finding | None = None  # why it holds, as long as it does

    @property
    def best(self) -> Evaluated | None:
        """The last evaluation that no earlier one was better than: what `adapters/` holds."""
        return next((e for e in reversed(self.evaluations) if e.best), None)

    def take(self, event: Event) -> None:
        """Goes on by one event."""
        self.attempt, self.last_time = event.attempt, event.time
        self.interruptions.take(event)
        match event.body:
            case events.StateChanged(state, cause):
                self.state, self.cause = state, cause
                self._enter("" if state is not JobState.RUNNING else self.phase)
            case events.PhaseChanged(phase):
                self._enter(phase)
            case events.Planned(plan):
                self.plan = plan
            case StepDone() as step:
                _append(self.steps, step)
            case Evaluated() as evaluated:
                _append(self.evaluations, evaluated)
            case CheckpointSaved() as saved:
                self.checkpoint = saved
            case events.Notice(finding):
                self.notices.append((event.time, finding))
                self.holding = finding if self.phase == "holding" else None

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.holding = self.holding if phase == "holding" else None


def _append(known: list[_Entry], new: _Entry) -> None:
    while known and known[-1].step >= new.step:
        known.pop()
    known.append(new)

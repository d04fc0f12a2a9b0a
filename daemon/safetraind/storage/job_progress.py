"""How far a job is, folded from its events."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from safetrain_shared.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    Outcome,
    PhaseChanged,
    StateChanged,
    StepDone,
)
from safetrain_shared.jobs import JobState

_PACES = 10  # of the newest steps that were told


@dataclass(slots=True)
class Progress:
    """The newest of everything a job has told. NaN-free: 0 where nothing was told yet.

    The `…_attempt` fields say in which attempt something was told last.
    """

    last_seq: int = 0
    state: JobState | None = None
    phase: str = ""
    step: int = 0
    epoch: int = 0
    total_steps: int = 0
    train_loss: float = 0.0
    valid_loss: float = 0.0
    best_loss: float = 0.0
    eta_seconds: float | None = None
    footprint: int = 0
    peak_memory: int = 0
    tokens_per_second: float = 0.0
    checkpoint: str = ""
    checkpoint_attempt: int = 0
    worker_attempt: int = 0
    outcome: Outcome | None = None
    outcome_attempt: int = 0
    paces: deque[float] = field(default_factory=lambda: deque(maxlen=_PACES))  # seconds a step

    def take(self, event: Event) -> None:
        """Takes the next event in."""
        self.last_seq = max(self.last_seq, event.seq)
        body = event.body
        if isinstance(body, StateChanged):
            self._take_state(body)
        elif isinstance(body, PhaseChanged | StepDone | Evaluated | CheckpointSaved | Outcome):
            self.worker_attempt = event.attempt
            self._take_work(event, body)

    def _take_state(self, body: StateChanged) -> None:
        self.state = body.state
        self.phase = ""
        self.eta_seconds = None
        self.paces.clear()

    def _take_work(self, event: Event, body: object) -> None:
        match body:
            case PhaseChanged(phase):
                self.phase = phase
            case StepDone():
                self._take_step(body)
            case Evaluated():
                self.valid_loss = body.loss
                if body.best:
                    self.best_loss = body.loss
            case CheckpointSaved():
                self.step, self.epoch = body.step, body.epoch
                self.checkpoint, self.checkpoint_attempt = body.path, event.attempt
            case Outcome():
                self.outcome, self.outcome_attempt = body, event.attempt

    def _take_step(self, body: StepDone) -> None:
        self.step, self.epoch, self.total_steps = body.step, body.epoch, body.total_steps
        self.train_loss, self.eta_seconds = body.loss, body.eta_seconds
        self.footprint, self.peak_memory = body.footprint, body.peak_memory
        self.tokens_per_second = body.tokens_per_second
        if body.step < body.total_steps:
            self.paces.append(body.eta_seconds / (body.total_steps - body.step))

    def eta_range(self) -> tuple[float, float] | None:
        """From when to when the end is likely, seconds from the newest step.

        Between the slowest and the fastest pace that the worker has found of late, and a tenth more
        on both sides for what it has not seen. Its clock counts no sleep and is never set back;
        the times of the events are for people.
        """
        if self.eta_seconds is None:
            return None
        left = self.total_steps - self.step
        estimates = [self.eta_seconds, *(throughput * left for throughput in self.paces)]
        return 0.9 * min(estimates), 1.1 * max(estimates)

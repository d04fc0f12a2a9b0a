"""A job's events folded into what status, views, tables and diagnosis read: the only such fold.

A run that was killed goes back to its last checkpoint and does some steps again. What it did
behind that checkpoint is superseded: of a step only the last event of each kind stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from safetrain_shared.evaluations import Evaluation
from safetrain_shared.events import (
    CheckpointSaved,
    Damaged,
    Evaluated,
    Event,
    Judged,
    Notice,
    Outcome,
    PhaseChanged,
    Planned,
    QuestionsAnswered,
    StateChanged,
    StepDone,
)
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState, Plan

_RECENT_STEPS = 10  # logged ones, for the range of the estimate
_Stepped = TypeVar("_Stepped", StepDone, Evaluated, CheckpointSaved)

# The columns of a job's metrics, one row a logged or evaluated step. Losses: mean per supervised
# token. Memory: bytes. time: seconds since the epoch, UTC.
COLUMNS = (
    "step",
    "epoch",
    "step_in_epoch",
    "train_loss",
    "valid_loss",
    "learning_rate",
    "grad_norm",
    "tokens",
    "tokens_per_second",
    "peak_memory",
    "footprint",
    "time",
)
_FROM_STEP = tuple(name for name in COLUMNS if name not in ("train_loss", "valid_loss", "time"))


class Occurrence(NamedTuple):
    """A notice, or the cause of a change of state. `time`: seconds since the epoch, UTC."""

    time: float
    attempt: int
    finding: Finding
    state: JobState | None = None


class Fallback(NamedTuple):
    """The plan asked for less memory from `step` on; `finding` says what changed."""

    step: int
    finding: Finding


@dataclass(slots=True)
class Progress:
    """The newest of everything: constant in size. Zero or empty where nothing happened yet.

    The `…_attempt` fields hold the attempt of the last such event.
    """

    last_seq: int = 0
    attempt: int = 0
    last_time: float = 0.0
    state: JobState | None = None
    state_time: float = 0.0
    cause: Finding | None = None
    phase: str = ""
    plan: Plan | None = None
    step: int = 0
    epoch: int = 0
    total_steps: int = 0
    train_loss: float = 0.0
    valid_loss: float = 0.0
    best_loss: float = 0.0
    base_loss: float = 0.0
    eta_seconds: float | None = None
    footprint: int = 0
    peak_memory: int = 0
    tokens_per_second: float = 0.0
    checkpoint: CheckpointSaved | None = None
    checkpoint_attempt: int = 0  # or of the last answers to questions: what a kill can't take back
    answered: QuestionsAnswered | None = None
    evaluation: Evaluation | None = None
    worker_attempt: int = 0
    outcome: Outcome | None = None
    outcome_attempt: int = 0
    step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_STEPS))

    def take(self, event: Event) -> None:
        """Take the next event in, in the order of the event file."""
        self.last_seq = max(self.last_seq, event.seq)
        if event.body is None or isinstance(event.body, Damaged):
            return
        self.attempt, self.last_time = event.attempt, event.time
        match event.body:
            case StateChanged(state, cause):
                self._enter_state(state, cause, event.time)
            case Planned(plan):
                self.plan = plan
            case (
                PhaseChanged()
                | StepDone()
                | Evaluated()
                | CheckpointSaved()
                | QuestionsAnswered()
                | Judged()
                | Outcome()
            ):
                self.worker_attempt = event.attempt
                self._take_work(event, event.body)

    def eta_range(self) -> tuple[float, float] | None:
        """From when to when the end is likely, seconds from the newest step.

        From the fastest and the slowest of the worker's latest estimates, and a tenth more on both
        sides. They come from its monotonic clock, which does not count sleep.
        """
        if self.eta_seconds is None:
            return None
        left = self.total_steps - self.step
        estimates = [self.eta_seconds, *(seconds * left for seconds in self.step_seconds)]
        return 0.9 * min(estimates), 1.1 * max(estimates)

    def _enter_state(self, state: JobState, cause: Finding | None, time: float) -> None:
        self.state, self.state_time, self.cause = state, time, cause
        self.phase = self.phase if state is JobState.RUNNING else ""
        self.eta_seconds = None
        self.step_seconds.clear()

    def _take_work(self, event: Event, body: object) -> None:
        match body:
            case PhaseChanged(phase):
                self.phase = phase
            case StepDone():
                self._take_step(body)
            case Evaluated(step=0):
                self.base_loss = body.loss
            case Evaluated():
                self.valid_loss = body.loss
                self.best_loss = body.loss if body.best else self.best_loss
            case CheckpointSaved():
                self.step, self.epoch = body.step, body.epoch
                self.checkpoint, self.checkpoint_attempt = body, event.attempt
            case QuestionsAnswered():
                self.answered, self.checkpoint_attempt = body, event.attempt
                self.eta_seconds = body.eta_seconds
            case Judged(evaluation):
                self.evaluation = evaluation
            case Outcome():
                self.outcome, self.outcome_attempt = body, event.attempt

    def _take_step(self, body: StepDone) -> None:
        self.step, self.epoch, self.total_steps = body.step, body.epoch, body.total_steps
        self.train_loss, self.eta_seconds = body.loss, body.eta_seconds
        self.footprint, self.peak_memory = body.footprint, body.peak_memory
        self.tokens_per_second = body.tokens_per_second
        if body.step < body.total_steps:
            self.step_seconds.append(body.eta_seconds / (body.total_steps - body.step))


@dataclass(slots=True)
class History(Progress):
    """`Progress`, and all that was logged: each list in the order of its steps, no step twice."""

    steps: list[StepDone] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    checkpoints: list[CheckpointSaved] = field(default_factory=list)
    notices: list[Occurrence] = field(default_factory=list)
    troubles: list[Occurrence] = field(default_factory=list)
    interruptions: list[tuple[float, Finding | None]] = field(default_factory=list)
    holding: Finding | None = None  # why it holds, as long as it does
    _times: dict[int, float] = field(default_factory=dict)  # of the last event of a step
    _fallbacks: list[Fallback] = field(default_factory=list)
    _pending: Finding | None = None  # a fallback before the next step

    @property
    def best(self) -> Evaluated | None:
        """The last evaluation that no earlier one was better than: the one in `adapters/`."""
        return next((e for e in reversed(self.evaluations) if e.best), None)

    @property
    def base(self) -> Evaluated | None:
        """The evaluation before the first step; None for a run that was not evaluated then."""
        return next((e for e in self.evaluations[:1] if e.step == 0), None)

    @property
    def fallbacks(self) -> list[Fallback]:
        """The fallbacks, each from the first step that was logged after it."""
        last = self.steps[-1].step if self.steps else 0
        pending = [Fallback(last, self._pending)] if self._pending else []
        return [*self._fallbacks, *pending]

    def take(self, event: Event) -> None:
        """Take the next event in, in the order of the event file."""
        Progress.take(self, event)
        match event.body:
            case StepDone() | Evaluated() | CheckpointSaved():
                self._log(event.body, event.time)
            case Notice(finding):
                self.notices.append(Occurrence(event.time, event.attempt, finding))
                self.holding = finding if self.phase == "holding" else None
                if finding.code.startswith("backoff."):
                    self._pending = finding
            case StateChanged(state, cause):
                if cause is not None:
                    self.troubles.append(Occurrence(event.time, event.attempt, cause, state))
                if state is JobState.INTERRUPTED:
                    self.interruptions.append((event.time, cause))
        if self.phase != "holding":
            self.holding = None

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the metrics by step, with `COLUMNS` as keys; None where nothing was measured."""
        trained = {body.step: body for body in self.steps}
        evaluated = {body.step: body for body in self.evaluations}
        for step in sorted(trained.keys() | evaluated.keys()):
            row = dict.fromkeys(COLUMNS) | {"step": step, "time": self._times[step]}
            if done := trained.get(step):
                row |= {name: getattr(done, name) for name in _FROM_STEP} | {
                    "train_loss": done.loss
                }
            if found := evaluated.get(step):
                row |= {"epoch": found.epoch, "step_in_epoch": found.step_in_epoch}
                row["valid_loss"] = found.loss
            yield row

    def _log(self, body: StepDone | Evaluated | CheckpointSaved, time: float) -> None:
        """Append to the list of its kind what comes now, after dropping what it supersedes."""
        for known in (self.steps, self.evaluations, self.checkpoints):
            while known and known[-1].step > body.step:
                known.pop()
        match body:
            case StepDone():
                _append(self.steps, body)
            case Evaluated():
                _append(self.evaluations, body)
            case CheckpointSaved():
                _append(self.checkpoints, body)
        if self._pending is not None:
            self._fallbacks.append(Fallback(body.step, self._pending))
            self._pending = None
        if not isinstance(body, CheckpointSaved):
            self._times[body.step] = time


def history(events: Iterable[Event]) -> History:
    """Return the history of a job from its events, in the order of its event file."""
    found = History()
    for event in events:
        found.take(event)
    return found


def _append(known: list[_Stepped], new: _Stepped) -> None:
    if known and known[-1].step == new.step:
        known.pop()
    known.append(new)

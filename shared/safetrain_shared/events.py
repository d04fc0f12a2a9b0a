"""The events of a job: one dataclass for each kind of body.

On disk an event is a JSON object (`seq`, `attempt`, `time`, `kind` and the body's fields), which
`safetraind.storage.event_file` writes and reads; on the wire it is `safetrain.v1.Event`.
"""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.evaluations import Evaluation
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState, Plan


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The job moved to another state; `cause` says why where it is not obvious."""

    state: JobState
    cause: Finding | None = None


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """What a worker is doing: one of `PHASES`."""

    phase: str


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan was frozen, or changed by a fallback."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class StepDone:
    """An optimizer step that is logged. Loss: mean per supervised token since the last such event.

    `tokens`: trained so far without padding. `peak_memory`, `footprint`: bytes.
    """

    step: int
    epoch: int
    step_in_epoch: int
    total_steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    peak_memory: int
    footprint: int
    eta_seconds: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The validation set was evaluated; `best`: no earlier loss was lower.

    At step 0 it was evaluated before the first step: of the base, or of the adapter that the
    training starts from. That is never the best, because no checkpoint holds it.
    """

    step: int
    epoch: int
    step_in_epoch: int
    loss: float
    samples: int
    best: bool


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint is complete on the disk."""

    step: int
    epoch: int
    step_in_epoch: int
    path: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class QuestionsAnswered:
    """So many of the evaluation's questions were answered, and the answers are on the disk."""

    answered: int
    total: int
    eta_seconds: float


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict of an evaluation, without its answers."""

    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should see: a warning, a fallback, a damaged checkpoint passed over."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last event of a worker that ended by itself: succeeded, paused, cancelled or failed."""

    outcome: str
    cause: Finding | None = None


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes of the event file that cannot be read. It has no `seq`."""

    first_byte: int
    last_byte: int


PHASES = (
    "checking",
    "loading",
    "tokenizing",
    "training",
    "evaluating",
    "saving",
    "holding",
    "answering",
    "inspecting",
    "asking",
    "comparing",
)

Body = (
    StateChanged
    | PhaseChanged
    | Planned
    | StepDone
    | Evaluated
    | CheckpointSaved
    | QuestionsAnswered
    | Judged
    | Notice
    | Outcome
    | Damaged
)

KINDS: dict[str, type] = {
    "state": StateChanged,
    "phase": PhaseChanged,
    "planned": Planned,
    "step": StepDone,
    "evaluated": Evaluated,
    "checkpoint": CheckpointSaved,
    "answered": QuestionsAnswered,
    "judged": Judged,
    "notice": Notice,
    "outcome": Outcome,
    "damaged": Damaged,
}
KIND_OF: dict[type, str] = {cls: kind for kind, cls in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `seq` counts within the job, `time` is seconds since the epoch, UTC.

    `body` is None for a kind that only a newer version knows.
    """

    seq: int
    attempt: int
    time: float
    kind: str
    body: Body | None

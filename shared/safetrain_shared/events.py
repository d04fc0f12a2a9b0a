"""What can happen in a job's life: the bodies of its events.

On disk an event is a JSON object (`seq`, `attempt`, `time`, `kind` and the body's fields); on the
wire it is `safetrain.v1.Event`. `safetraind.storage.event_file` writes and reads the lines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import (
    JobState,
    Plan,
    field_names,
    finding_from_dict,
    plan_from_dict,
    to_dict,
)


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
    """The plan was frozen, or changed by a back-off."""

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
    """The whole validation set was evaluated; `best`: no earlier loss was lower."""

    step: int
    epoch: int
    step_in_epoch: int
    loss: float
    samples: int
    best: bool


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint is whole on the disk."""

    step: int
    epoch: int
    step_in_epoch: int
    path: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should see: a warning, a back-off, a damaged checkpoint passed over."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last word of a worker that ended by itself: succeeded, paused, cancelled or failed."""

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
)

Body = (
    StateChanged
    | PhaseChanged
    | Planned
    | StepDone
    | Evaluated
    | CheckpointSaved
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
    "notice": Notice,
    "outcome": Outcome,
    "damaged": Damaged,
}
KIND_OF: dict[type, str] = {cls: kind for kind, cls in KINDS.items()}
_NESTED = frozenset({"state", "cause", "finding", "plan"})
_FLAT = frozenset(cls for cls in KIND_OF if _NESTED.isdisjoint(field_names(cls)))


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `seq` counts within the job, `time` is seconds since the epoch, UTC.

    `body` is None for a kind that only a newer version knows; `kind` and `raw` still tell it.
    """

    seq: int
    attempt: int
    time: float
    kind: str
    body: Body | None
    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def event_to_dict(seq: int, attempt: int, time: float, body: Body) -> dict[str, Any]:
    """The JSON object of an event."""
    return {
        "seq": seq,
        "attempt": attempt,
        "time": time,
        "kind": KIND_OF[type(body)],
        **to_dict(body),
    }


def event_from_dict(data: Mapping[str, Any]) -> Event:
    """The reverse of `event_to_dict`. Raises KeyError or TypeError where fields are missing."""
    kind = data["kind"]
    cls = KINDS.get(kind)
    body = _body(cls, data) if cls else None
    return Event(data["seq"], data["attempt"], data["time"], kind, body, data)


def _body(cls: type, data: Mapping[str, Any]) -> Body:
    if cls in _FLAT:  # most events, and whole: in half the time
        try:
            whole: Body = cls(*map(data.__getitem__, field_names(cls)))
            return whole
        except KeyError:
            pass
    known = {name: data[name] for name in field_names(cls) if name in data}
    if "state" in known:
        known["state"] = JobState(known["state"])
    for name in ("cause", "finding"):
        if known.get(name) is not None:
            known[name] = finding_from_dict(known[name])
    if "plan" in known:
        known["plan"] = plan_from_dict(known["plan"])
    body: Body = cls(**known)
    return body

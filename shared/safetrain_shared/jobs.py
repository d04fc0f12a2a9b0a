"""What a job is: its specification, its plan, its states and which of them are final."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

from safetrain_shared.findings import Finding, Status
from safetrain_shared.settings import LENGTH_BUCKET, SettingValue, TrainingSettings

# What is trained where nobody says otherwise, and answers where nothing was trained yet.
DEFAULT_MODEL = "mlx-community/Mistral-7B-Instruct-v0.3-4bit"


class JobState(StrEnum):
    """Where a job stands; ARCHITECTURE.md draws the moves between the states."""

    QUEUED = "queued"
    CHECKING = "checking"
    RUNNING = "running"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
LIVE = frozenset(JobState) - FINAL


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What the user asked for. Paths are absolute; `settings` holds only what was chosen.

    `start_adapter`: weights of an adapter that the training starts from; empty: a new one.
    """

    model: str
    train: str
    valid: str
    output: str
    name: str = ""
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    memory_budget: int = 0
    trust_remote_code: bool = False
    allow_shorter: bool = False
    start_adapter: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided for this machine, model and data: bytes, tokens, optimizer steps, seconds.

    Frozen at the first step, because a result equal to the bit depends on it.
    `length_bucket`: sequences are padded to a multiple of it. A zero limit is left alone.
    `heaviest_width` and `heaviest_share`: of the micro-batch that the peaks speak of, the tokens a
    row, and the share of them whose predictions go through the head.
    """

    settings: TrainingSettings
    model_path: str
    total_steps: int = 0
    length_bucket: int = LENGTH_BUCKET
    memory_budget: int = 0
    memory_limit: int = 0
    cache_limit: int = 0
    wired_limit: int = 0
    predicted_peak: int = 0
    measured_peak: int = 0
    tokens_per_second: float = 0.0
    expected_seconds: float = 0.0
    samples: int = 0
    samples_cut: int = 0
    samples_left_out: int = 0
    compiled_shapes: int = 0
    heaviest_width: int = 0
    heaviest_share: float = 0.0
    reasons: tuple[Finding, ...] = ()


@cache
def field_names(cls: Any) -> tuple[str, ...]:
    """The fields of a dataclass, in order; remembered, for `dataclasses.fields` is slow."""
    return tuple(f.name for f in dataclasses.fields(cls))


def to_dict(value: Any) -> Any:
    """A spec, plan or finding as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_dict(getattr(value, name)) for name in field_names(type(value))}
    if isinstance(value, Mapping):
        return {k: to_dict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(v) for v in value]
    return str(value) if isinstance(value, StrEnum) else value


def spec_from_dict(data: Mapping[str, Any]) -> JobSpec:
    """The reverse of `to_dict` for a spec; fields of a newer version are passed over."""
    known = _known(JobSpec, data)
    known["settings"] = {k: _tupled(v) for k, v in known.get("settings", {}).items()}
    return JobSpec(**known)


def settings_from_dict(data: Mapping[str, Any]) -> TrainingSettings:
    """The reverse of `to_dict` for settings; fields of a newer version are passed over."""
    return TrainingSettings(**{k: _tupled(v) for k, v in _known(TrainingSettings, data).items()})


def finding_from_dict(data: Mapping[str, Any]) -> Finding:
    """The reverse of `to_dict` for a finding."""
    known = _known(Finding, data)
    known["status"] = Status(known.get("status", Status.INFO))
    return Finding(**known)


def plan_from_dict(data: Mapping[str, Any]) -> Plan:
    """The reverse of `to_dict` for a plan."""
    known = _known(Plan, data)
    known["settings"] = settings_from_dict(known["settings"])
    known["reasons"] = tuple(finding_from_dict(r) for r in known.get("reasons", ()))
    return Plan(**known)


def _known(cls: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    names = field_names(cls)
    return {k: v for k, v in data.items() if k in names}


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

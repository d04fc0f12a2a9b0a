"""Jobs: specification, plan, states and which of them are final."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from safetrain_shared.evaluations import EvaluationSpec
from safetrain_shared.findings import Finding
from safetrain_shared.settings import LENGTH_BUCKET, SettingValue, TrainingSettings

# What is trained where nobody says otherwise, and answers where nothing was trained yet.
DEFAULT_MODEL = "mlx-community/Mistral-7B-Instruct-v0.3-4bit"


class JobState(StrEnum):
    """Where a job stands; ARCHITECTURE.md has the diagram of the transitions."""

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
    """The specification of a job, as the user asked for it. Paths are absolute.

    `settings` holds only what was chosen.
    `start_adapter`: weights of an adapter that the training starts from; empty: a new one.
    `defaults`: what stands for the settings that were not chosen. The daemon sets it when the job
    is submitted, so that a default that a later version changes does not reach this job.
    `evaluation`: what is asked once it is trained, or, where that names another job, what this job
    does in place of a training.
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
    defaults: TrainingSettings | None = None
    evaluation: EvaluationSpec | None = None

    @property
    def evaluates(self) -> int:
        """The job that this one evaluates; 0: this one trains."""
        return self.evaluation.job if self.evaluation else 0

    @property
    def complete_settings(self) -> TrainingSettings:
        """The chosen settings, and the defaults for the rest."""
        return (self.defaults or TrainingSettings()).with_overrides(self.settings)


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions for this machine, model and data: bytes, tokens, optimizer steps, seconds.

    Frozen at the first step, because a result equal to the bit depends on it.
    `length_bucket`: sequences are padded to a multiple of it. A zero limit is left alone.
    `heaviest_width` and `heaviest_share`: of the micro-batch that the peaks speak of, the tokens a
    row, and the share of them whose predictions go through the head. `degree`: how the peak is
    known: estimated, extrapolated or measured; `margin`: the share by which it may be exceeded.
    """

    FORMAT: ClassVar[int] = 1

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
    degree: str = ""
    margin: float = 0.0
    reasons: tuple[Finding, ...] = ()

    @property
    def duration(self) -> float:
        """Seconds from the start of the training to its end, rests included; 0: not known."""
        return self.expected_seconds + self.settings.rest_seconds(self.expected_seconds)

"""The words of the planner: what is asked, what was measured, and a way to train."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.jobs import JobSpec
from safetrain_shared.settings import TrainingSettings
from safetraind.preflight.budget import Budget
from safetraind.preflight.facts import Lengths
from safetraind.preflight.memory import Step
from safetraind.preflight.model_folder import ModelShape

# How sure a peak is: from the formula, from the step's graph, from steps that were run.
ESTIMATED, REHEARSED, MEASURED = range(3)


@dataclass(frozen=True, slots=True)
class Question:
    """All that a plan depends on. `device`: cpu, metal or cuda."""

    spec: JobSpec
    shape: ModelShape
    quantized: bool
    model_path: str
    lengths: Lengths
    samples: int
    text_only: bool
    available: int
    budget: Budget
    device: str


@dataclass(frozen=True, slots=True)
class Measure:
    """What the probe saw of one setup at the job's heaviest shape. Bytes; tokens with padding.

    Without `tokens_per_second` it was only rehearsed: the peak comes from the step's own graph.
    `outside`: what the process cost beside MLX's arrays.
    """

    settings: TrainingSettings
    step: Step
    peak: int
    tokens_per_second: float = 0.0
    outside: int = 0


@dataclass(frozen=True, slots=True)
class Option:
    """A way to train: the memory it takes, and the time of an epoch, in seconds where it was
    measured and else in units of one token's.
    """

    settings: TrainingSettings
    peak: int
    cost: float
    step: Step
    sureness: int = ESTIMATED
    tokens_per_second: float = 0.0

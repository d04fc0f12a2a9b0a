"""The planner's question and its options: all that a plan depends on, and a way to train."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.jobs import JobSpec
from safetrain_shared.settings import TrainingSettings
from safetraind.models.model_config import ModelShape
from safetraind.planner.budget import Budget
from safetraind.planner.degree import Degree
from safetraind.planner.memory_estimate import Runtime
from safetraind.worker_messages.inspect_messages import Lengths
from safetraind.worker_messages.pilot_messages import PilotResult
from safetraind.worker_messages.probe_messages import Step


@dataclass(frozen=True, slots=True)
class Question:
    """The input of a plan.

    `device`: cpu, metal or cuda, with its limits, 0 where it reports none: the bytes of one buffer,
    and the number of `resources` (buffers). `effective_batch`: that of a training that continues,
    whose schedule is fixed; 0: free. `splits_head`: the loss can be computed in chunks.
    `unsupported`: settings that train this model wrongly, which are turned off. `pilot`: the result
    of short runs, which may have found nothing (`pilot_failed`).
    """

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
    valid: Lengths | None = None
    largest_buffer: int = 0
    resources: int = 0
    effective_batch: int = 0
    splits_head: bool = True
    unsupported: frozenset[str] = frozenset()
    pilot: PilotResult | None = None
    pilot_failed: bool = False

    @property
    def runtime(self) -> Runtime:
        """The model and device that compute."""
        return Runtime(self.shape, self.device, self.splits_head)


@dataclass(frozen=True, slots=True)
class Option:
    """A way to train: the memory it takes, and the time of an epoch, in units of one token's
    (`cost`), and in `seconds` where steps were run. `largest`: bytes of its largest array. `limit`:
    MLX's memory limit, in bytes, under which it takes this peak.
    """

    settings: TrainingSettings
    peak: int
    cost: float
    step: Step
    largest: int = 0
    degree: Degree = Degree.ESTIMATED
    seconds: float = 0.0
    limit: int = 0

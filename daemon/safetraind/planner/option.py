"""What the planner is asked, what was run, and a way to train."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.jobs import JobSpec
from safetrain_shared.settings import TrainingSettings
from safetraind.models.model_config import ModelShape
from safetraind.planner.budget import Budget
from safetraind.planner.degree import Degree
from safetraind.planner.facts import Lengths
from safetraind.planner.memory_estimate import Runtime, Step
from safetraind.planner.pilot import PilotResult


@dataclass(frozen=True, slots=True)
class Question:
    """All that a plan depends on. `device`: cpu, metal or cuda, and what it allows, 0 where it
    tells no limit: bytes of one buffer, and how many `resources` (buffers) there may be.
    `effective_batch`: that of a training that goes on, whose schedule stands; 0: free.
    `splits_head`: the loss can be computed in chunks. `unsupported`: settings that the model would
    be trained wrongly with, which are turned off. `pilot`: what short runs found; they may have
    found nothing (`pilot_failed`).
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
        """What computes."""
        return Runtime(self.shape, self.device, self.splits_head)


# Memory limits that differ by no more have the same effect.
_SAME_LIMIT = 0.1


@dataclass(frozen=True, slots=True)
class Measure:
    """Real steps of one setup. Bytes; tokens a second with padding; `update_seconds`: of each step,
    what goes into applying the gradient.

    `outside`: what the process cost beside MLX's arrays. `died`: it ran out of memory where MLX was
    allowed `peak` bytes. `limit`: MLX's memory limit then, 0 where it is not known.
    """

    settings: TrainingSettings
    step: Step
    peak: int
    tokens_per_second: float = 0.0
    outside: int = 0
    died: bool = False
    update_seconds: float = 0.0
    limit: int = 0

    def holds_under(self, limit: int) -> bool:
        """Whether a step under a memory limit of so many bytes takes what this one took.

        Below its limit MLX runs ahead of what is needed: a step that took more than `limit` allows
        may take less under it, and one that was held back may take more without.
        """
        if not self.limit or self.peak <= min(self.limit, limit):
            return True
        return abs(self.limit - limit) <= _SAME_LIMIT * limit

    @property
    def seconds(self) -> float:
        """Of one micro-batch, without applying the gradient; a step was run of two where they are
        accumulated.
        """
        batches = 2 if self.settings.gradient_accumulation > 1 else 1
        taken = self.step.rows * self.step.width / self.tokens_per_second
        return max(0.0, taken - self.update_seconds / batches)


@dataclass(frozen=True, slots=True)
class Option:
    """A way to train: the memory it takes, and the time of an epoch, in units of one token's
    (`cost`), and in `seconds` where steps were run. `largest`: bytes of its largest array.
    """

    settings: TrainingSettings
    peak: int
    cost: float
    step: Step
    largest: int = 0
    degree: Degree = Degree.ESTIMATED
    seconds: float = 0.0

"""The face that a trainer shows to the suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.conformance.material import Material

# What every trainer is asked for, in the project's terms; counts of steps are optimizer steps.
SETTINGS: dict[str, Any] = {
    "batch_size": 4,
    "gradient_accumulation": 1,
    "max_seq_length": 256,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "warmup_steps": 0,
    "num_epochs": 1,
    "lora_layers": 2,
    "lora_dropout": 0.0,
    "gradient_checkpointing": False,
    "max_grad_norm": 0.0,
    "eval_steps": 1000,
    "seed": 3,
}


@dataclass
class Report:
    """What a training did.

    `micro_batches`: the numbers of the samples in each, in order. `learned`: predictions that
    counted in the loss. `padding`: share of the computed tokens. For each optimizer step `losses`
    and `rates`; for each evaluation `evaluations`. `weights`: the adapter at the end.
    """

    micro_batches: list[list[int]] = field(default_factory=list)
    learned: int = 0
    padding: float = 0.0
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    evaluations: list[float] = field(default_factory=list)
    weights: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def distance(self, other: Report) -> float:
        """How far the adapters are apart, relative to their size."""
        gap = sum(float(np.square(w - other.weights[n]).sum()) for n, w in self.weights.items())
        size = sum(float(np.square(w).sum()) for n, w in self.weights.items() if "lora_b" in n)
        return (gap / max(size, 1e-30)) ** 0.5


class Trainer(Protocol):
    """A trainer in the suite's hands."""

    name: str

    def train(
        self, folder: Path, material: Material, *, kill_after: int = 0, **settings: Any
    ) -> Report:
        """Train in the empty `folder` with `settings` over `SETTINGS`.

        With `kill_after` the training ends without warning after that many optimizer steps, and is
        then resumed from what it had saved, in the trainer's own way.
        """
        ...

"""The face that a trainer shows to the suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    "fine_tune_type": "lora",
    "lora_layers": 2,
    "lora_dropout": 0.0,
    "mask_prompt": True,
    "packing": False,
    "loss_chunk": 0,
    "gradient_checkpointing": False,
    "max_grad_norm": 0.0,
    "early_stopping": 0,
    "eval_steps": 1000,
    "save_steps": 1,
    "seed": 3,
}

Arrays = Mapping[str, NDArray[Any]]


class HasNone(AssertionError):
    """The trainer has no such thing at all."""


@dataclass
class Report:
    """What a training did.

    `micro_batches`: the numbers of the samples in each, in order. `learned`: predictions that
    counted in the loss. `padding`: share of the computed tokens. `left_out` and `cut`: samples
    that it says were not used, or not wholly; None where it says nothing. For each optimizer step
    `losses` and `rates`; for each evaluation `evaluations`. `warnings`: codes of what it said that
    a user should know. At the end `weights` of the adapter, what was kept of the `optimizer`, and
    `adapter`, the folder that the user gets, as mlx-lm reads it.

    A training that was killed has no `micro_batches`, `learned` and `padding`.
    """

    micro_batches: list[list[int]] = field(default_factory=list)
    learned: int = 0
    padding: float = 0.0
    left_out: int | None = None
    cut: int | None = None
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    evaluations: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    weights: Arrays = field(default_factory=dict)
    optimizer: Arrays = field(default_factory=dict)
    adapter: Path = Path()

    def distance(self, other: Report) -> float:
        """How far the adapters are apart, relative to their size."""
        gap = sum(float(np.square(w - other.weights[n]).sum()) for n, w in self.weights.items())
        size = sum(float(np.square(w).sum()) for n, w in self.weights.items() if "lora_b" in n)
        return float((gap / max(size, 1e-30)) ** 0.5)


class Trainer(Protocol):
    """A trainer in the suite's hands."""

    name: str

    def train(
        self,
        folder: Path,
        material: Material,
        *,
        kills: Sequence[int] | None = None,
        damage: bool = False,
        **settings: Any,
    ) -> Report:
        """Train in the empty `folder` with `settings` over `SETTINGS`.

        With `kills`, empty or not, the training is a process of its own. It dies by SIGKILL in the
        middle of the window after each of those optimizer steps, and is then started again from
        what it had saved, in the trainer's own way. With `damage` a bit of what it saved last is
        flipped meanwhile.

        Raises HasNone for what the trainer does not have.
        """
        ...


def flip_a_bit(file: Path) -> None:
    """As a failing disk does."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)

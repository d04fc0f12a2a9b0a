"""Real training steps at a given shape: their peak memory and their time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from safetraind.host import footprint
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.step import Stepper

# A peak and a speed repeat within a few percent: more steps are only run while they are quick.
_MOST_STEPS = 3
_ENOUGH_SECONDS = 2.0
_PACKED_SAMPLES = 4  # in a row that is made up; memory does not depend on it


@dataclass(frozen=True, slots=True)
class Trial:
    """One setup: micro-batches of `rows` × `width` tokens, `learned` of them predicted."""

    rows: int
    width: int
    learned: int
    valid_width: int
    valid_learned: int
    accumulates: bool
    packed: bool

    @property
    def tokens(self) -> int:
        """Tokens that a step computes on."""
        return self.rows * self.width * (2 if self.accumulates else 1)


def trial_of(setup: Mapping[str, Any]) -> Trial:
    """The trial that a setup of the request asks for."""
    shape = {name: setup[name] for name in ("rows", "width", "learned")}
    evaluated = {name: setup[name] for name in ("valid_width", "valid_learned")}
    accumulates = setup["settings"]["gradient_accumulation"] > 1
    return Trial(**shape, **evaluated, accumulates=accumulates, packed=setup["settings"]["packing"])


def measure(
    stepper: Stepper, trial: Trial, vocabulary: int, time_for: Callable[[float], bool]
) -> dict[str, Any] | None:
    """The peak in bytes, tokens per second, the seconds of each step that go into applying the
    gradient, and what the process costs beside MLX's arrays.

    The first step compiles and reads about 5 % low, so it is discarded. `time_for` is asked, with
    the seconds that the first step took, whether there is time for another; None where not.
    """
    batch = made_up(trial.rows, trial.width, trial.learned, vocabulary, packed=trial.packed)
    window = [batch] * (2 if trial.accumulates else 1)
    began = time.monotonic()
    stepper.step(window, 0, 0.0)
    if not time_for(time.monotonic() - began):
        return None
    mx.clear_cache()
    mx.reset_peak_memory()
    began, steps, updating = time.monotonic(), 0, 0.0
    while steps < _MOST_STEPS and (not steps or time.monotonic() - began < _ENOUGH_SECONDS):
        steps += 1
        updating += stepper.step(window, steps, 0.0).update_seconds
    seconds = time.monotonic() - began
    if trial.valid_width:
        evaluated = made_up(trial.rows, trial.valid_width, trial.valid_learned, vocabulary)
        stepper.evaluate([evaluated])
    held = mx.get_active_memory() + mx.get_cache_memory()
    return {
        "peak": mx.get_peak_memory(),
        "tokens_per_second": steps * trial.tokens / seconds,
        "update_seconds": updating / steps,
        "outside": max(0, footprint(os.getpid()) - held),
    }


def made_up(rows: int, width: int, learned: int, vocabulary: int, *, packed: bool = False) -> Batch:
    """A micro-batch of random tokens, every one real, `learned` predictions of which count.

    `packed`: each row holds a few samples.
    """
    draw = np.random.default_rng(0)
    inputs = draw.integers(0, vocabulary, (rows, width), np.int32)
    places = np.sort(draw.permutation(rows * width)[:learned]).astype(np.int32)
    segments = np.tile(np.arange(width, dtype=np.int32) * _PACKED_SAMPLES // width, (rows, 1))
    positions = np.tile(np.arange(width, dtype=np.int32), (rows, 1))
    return Batch(
        inputs=inputs,
        places=places,
        targets=draw.integers(0, vocabulary, learned, np.int32),
        weights=np.ones(learned, np.float32),
        segments=segments if packed else None,
        positions=positions if packed else None,
        samples=(),
        tokens=rows * width,
        learned=learned,
    )

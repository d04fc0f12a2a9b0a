"""`python -m benchmarks.preflight.speeds REQUEST`: the time of an epoch in one way, or a peak.

Run as a child, as a training is: where several ways shared a process, what one left in memory made
another up to a fifth slower. A setup may also end it. REQUEST has the `model`, `settings`, and

- `train`, `bucket` and MLX's memory limit, `limit`, as a training would have it: prints the seconds
  of an epoch over that file, the least of two, and the bytes at its peak. Steps that compile do not
  count.
- `step`: prints the bytes of MLX's peak in one step of that shape.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from safetrain_shared.codec import from_plain
from safetrain_shared.settings import TrainingSettings
from safetraind.worker.data.encode_chat import Encoder
from safetraind.worker.loading import load
from safetraind.worker.probe.steps import made_up
from safetraind.worker.training.batches import Batch, Batches
from safetraind.worker.training.dataset import write
from safetraind.worker.training.step import Stepper

_PASSES = 2


def main() -> None:
    """Print the answer as JSON."""
    request = json.loads(sys.argv[1])
    settings = from_plain(request["settings"], TrainingSettings)
    print(json.dumps((_epoch if "train" in request else _peak)(request, settings)))


def _epoch(request: dict[str, Any], settings: TrainingSettings) -> tuple[float, int]:
    """Return the seconds of a pass over micro-batches as the trainer makes them, and the bytes at
    its peak.
    """
    loaded = load(request["model"], dequantize=settings.dequantize)
    encoder = Encoder(loaded.tokenizer, settings.mask_prompt, loaded.vocabulary, settings.thinking)
    mx.set_memory_limit(request["limit"])
    with tempfile.TemporaryDirectory() as folder:
        data = encoder.encode_file(request["train"])
        samples = write(Path(folder), data, settings.max_seq_length, {})
        batches = Batches(samples, settings, request["bucket"], seed=0)
        windows = [batches.window(0, place) for place in range(batches.steps_per_epoch)]
    stepper = Stepper(loaded.model, settings, seed=0)
    mx.eval(loaded.model.parameters())
    _pass(stepper, _one_of_each_shape(windows))
    mx.reset_peak_memory()
    return min(_pass(stepper, windows) for _ in range(_PASSES)), mx.get_peak_memory()


def _one_of_each_shape(windows: Sequence[list[Batch]]) -> list[list[Batch]]:
    seen: set[tuple[tuple[int, ...], ...]] = set()
    found = []
    for window in windows:
        shapes = {(batch.inputs.shape, batch.places.shape) for batch in window}
        if not shapes <= seen:
            found.append(window)
            seen |= shapes
    return found


def _pass(stepper: Stepper, windows: Sequence[list[Batch]]) -> float:
    began = time.perf_counter()
    for number, window in enumerate(windows):
        stepper.step(window, number, 0.0)
    return time.perf_counter() - began


def _peak(request: dict[str, Any], settings: TrainingSettings) -> int:
    loaded = load(request["model"], dequantize=settings.dequantize)
    rows, width, learned = (request["step"][name] for name in ("rows", "width", "learned"))
    batch = made_up(rows, width, learned, int(loaded.config["vocab_size"]), packed=settings.packing)
    stepper = Stepper(loaded.model, settings, seed=0)
    window = [batch] * settings.gradient_accumulation
    stepper.step(window, 0, 0.0)  # compiles
    mx.clear_cache()
    mx.reset_peak_memory()
    stepper.step(window, 1, 0.0)
    return mx.get_peak_memory()


if __name__ == "__main__":
    main()

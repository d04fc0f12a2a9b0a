"""`python -m benchmarks.preflight.speeds REQUEST`: the time of an epoch in several ways, or a peak.

Run as a child, because a setup may end it. REQUEST has the `model`, and

- `train`, `bucket`, `settings`, a list, and for each of them MLX's memory limit, `limits`, as a
  training would have it: prints the seconds of an epoch over that file with each of them, in turn
  and several times over, the least of each, and the bytes at its peak. Steps that compile do not
  count. What was a tenth slower than the fastest is not run again, but for the first; the others
  are run twice at least, and no further round begins after half a minute.
- `settings` and `step`: prints the bytes of MLX's peak in one step of that shape.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
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

_ROUNDS = 5
_ENOUGH_SECONDS = 30.0
_SLOWER = 1.1


@dataclass(frozen=True, slots=True)
class Setup:
    """A way to train, ready to run: the micro-batches of each step of an epoch, its memory limit,
    and the bytes that it holds between steps.
    """

    stepper: Stepper
    windows: Sequence[list[Batch]]
    limit: int
    held: int


def main() -> None:
    """Print the answer as JSON."""
    request = json.loads(sys.argv[1])
    print(json.dumps(_epochs(request) if "train" in request else _peak(request)))


def _epochs(request: dict[str, Any]) -> list[tuple[float, int]]:
    with tempfile.TemporaryDirectory() as name:
        ready = [
            _prepared(request, from_plain(plain, TrainingSettings), limit, Path(name) / str(number))
            for number, (plain, limit) in enumerate(
                zip(request["settings"], request["limits"], strict=True)
            )
        ]
        ready = [_compiled(setup) for setup in ready]
        end = time.monotonic() + _ENOUGH_SECONDS
        least, peaks = map(list, zip(*map(_pass, ready), strict=True))
        for number in range(1, _ROUNDS):
            near = [n for n, taken in enumerate(least) if not n or taken <= _SLOWER * min(least)]
            if len(near) < 2 or (number > 1 and time.monotonic() > end):
                break
            for n in near:
                taken, peak = _pass(ready[n])
                least[n], peaks[n] = min(least[n], taken), max(peaks[n], peak)
    return list(zip(least, peaks, strict=True))


def _prepared(
    request: dict[str, Any], settings: TrainingSettings, limit: int, folder: Path
) -> Setup:
    """Return a setup, with micro-batches as the trainer makes them. Samples are written below
    `folder`.
    """
    before = mx.get_active_memory()
    loaded = load(request["model"], dequantize=settings.dequantize)
    encoder = Encoder(loaded.tokenizer, settings.mask_prompt, loaded.vocabulary, settings.thinking)
    samples = write(folder, encoder.encode_file(request["train"]), settings.max_seq_length, {})
    batches = Batches(samples, settings, request["bucket"], seed=0)
    windows = [batches.window(0, place) for place in range(batches.steps_per_epoch)]
    stepper = Stepper(loaded.model, settings, seed=0)
    mx.eval(loaded.model.parameters())
    return Setup(stepper, windows, limit, mx.get_active_memory() - before)


def _compiled(setup: Setup) -> Setup:
    """Return the setup after steps of all shapes, from which on it holds the moments of its
    optimizer too.
    """
    before = mx.get_active_memory()
    seen: set[tuple[tuple[int, ...], ...]] = set()
    windows = []
    for window in setup.windows:
        shapes = {(batch.inputs.shape, batch.places.shape) for batch in window}
        if not shapes <= seen:
            windows.append(window)
            seen |= shapes
    _pass(dataclasses.replace(setup, windows=windows))
    return dataclasses.replace(setup, held=setup.held + mx.get_active_memory() - before)


def _pass(setup: Setup) -> tuple[float, int]:
    """Return the seconds of a pass, and the bytes at its peak without what the other setups hold,
    by which the limit is raised.
    """
    others = mx.get_active_memory() - setup.held
    mx.set_memory_limit(setup.limit + others)
    mx.reset_peak_memory()
    began = time.perf_counter()
    for number, window in enumerate(setup.windows):
        setup.stepper.step(window, number, 0.0)
    return time.perf_counter() - began, mx.get_peak_memory() - others


def _peak(request: dict[str, Any]) -> int:
    settings = from_plain(request["settings"], TrainingSettings)
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

"""`python -m benchmarks.preflight.speeds REQUEST`: speed of setups, interleaved, and their peak.

Run as a child, because a setup may end it. REQUEST: {"model", "setups", "rounds"}; after a
minute of them no further round begins. Prints JSON:
`speeds`, the median tokens per second of each setup in the order given, and `peak`, the bytes of
MLX's peak, of all setups together.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import mlx.core as mx

from safetrain_shared.codec import from_plain
from safetrain_shared.settings import TrainingSettings
from safetraind.worker.loading import load
from safetraind.worker.probe.steps import made_up
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.step import Stepper

_ENOUGH_SECONDS = 60.0  # steps so long average by themselves what else the machine does


def main() -> None:
    """One step of each setup in turn, `rounds` times after one to warm up."""
    request = json.loads(sys.argv[1])
    ready = [_prepared(request["model"], setup) for setup in request["setups"]]
    times: list[list[float]] = [[] for _ in ready]
    end = 0.0
    for number in range(request["rounds"] + 1):
        if number > 1 and time.monotonic() > end:
            break
        for (stepper, window), seconds in zip(ready, times, strict=True):
            began = time.perf_counter()
            stepper.step(window, number, 0.0)
            if number:
                seconds.append(time.perf_counter() - began)
        if not number:  # the first steps compile
            mx.clear_cache()
            mx.reset_peak_memory()
            end = time.monotonic() + _ENOUGH_SECONDS
    medians = [
        sum(batch.inputs.size for batch in window) / statistics.median(seconds)
        for (_, window), seconds in zip(ready, times, strict=True)
    ]
    print(json.dumps({"speeds": medians, "peak": mx.get_peak_memory()}))


def _prepared(model: str, setup: dict[str, Any]) -> tuple[Stepper, list[Batch]]:
    settings = from_plain(setup["settings"], TrainingSettings)
    loaded = load(model, dequantize=settings.dequantize)
    vocabulary = int(loaded.config["vocab_size"])
    rows, width, learned = (setup[name] for name in ("rows", "width", "learned"))
    batch = made_up(rows, width, learned, vocabulary, packed=settings.packing)
    window = [batch] * settings.gradient_accumulation
    return Stepper(loaded.model, settings, seed=0), window


if __name__ == "__main__":
    main()

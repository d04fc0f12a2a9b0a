"""`python -m benchmarks.preflight.speeds REQUEST`: tokens per second of setups, interleaved.

Run as a child, because a setup may end it. REQUEST: {"model", "setups", "rounds"}; prints a JSON
list of medians, one a setup, in the order given.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

from safetrain_shared.jobs import settings_from_dict
from safetraind.worker.loading import load
from safetraind.worker.probing.probe import made_up
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.step import Stepper


def main() -> None:
    """One step of each setup in turn, `rounds` times after one to warm up."""
    request = json.loads(sys.argv[1])
    ready = [_prepared(request["model"], setup) for setup in request["setups"]]
    times: list[list[float]] = [[] for _ in ready]
    for number in range(request["rounds"] + 1):
        for (stepper, batch), seconds in zip(ready, times, strict=True):
            began = time.perf_counter()
            stepper.step([batch], number, 0.0)
            if number:
                seconds.append(time.perf_counter() - began)
    medians = [
        batch.inputs.size / statistics.median(seconds)
        for (_, batch), seconds in zip(ready, times, strict=True)
    ]
    print(json.dumps(medians))


def _prepared(model: str, setup: dict[str, Any]) -> tuple[Stepper, Batch]:
    settings = settings_from_dict(setup["settings"])
    loaded = load(model, dequantize=settings.dequantize)
    vocabulary = int(loaded.config["vocab_size"])
    batch = made_up(setup["rows"], setup["width"], setup["learned"], vocabulary)
    return Stepper(loaded.model, settings, seed=0), batch


if __name__ == "__main__":
    main()

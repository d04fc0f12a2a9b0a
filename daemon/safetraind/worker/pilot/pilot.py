"""The worker role `pilot`: trains some tens of steps on the job's data at each of several rates.

Reads `pilot_request.json` in its run folder: {"model", "trust_remote_code", "train", "valid",
"settings", "length_bucket", "memory_limit", "cache_limit", "rates", "seconds"}; the rates in the
order in which they are to be tried. Every rate starts from the same adapter and sees the same
samples. Adds {"phase", "done"} lines to its result file's `.partial`; the result is {"base",
"steps", "trials": [{"rate", "loss", "finite"}]}, losses being those of held-out samples.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from safetrain_shared.codec import from_plain
from safetrain_shared.errors import SafetrainError, error_to_dict
from safetrain_shared.paths import RunFolder
from safetrain_shared.settings import TrainingSettings
from safetraind.storage.durable import read_json, write_json
from safetraind.worker.data.encode_chat import Encoder
from safetraind.worker.loading import load
from safetraind.worker.training import adapters, dataset
from safetraind.worker.training.batches import Batches, evaluation_batches
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.step import Stepper

MOST_STEPS, LEAST_STEPS = 60, 10
_MOST_SAMPLES, _HELD_OUT = 2048, 48
_WARMUP = 5  # steps over which the rate rises
_HOPELESS = 2.0  # a loss of a step so many times the first one's only goes up
_TIMED_STEPS = 3  # the first compiles

Tell = Callable[[str, float], None]


def main(arguments: list[str]) -> int:
    """Tries the rates as the run folder asks. What cannot be tried is a result, not a failure."""
    run = RunFolder(Path(arguments[0]))
    request = read_json(run.root / "pilot_request.json")
    with Path(f"{run.probe}.partial").open("w", encoding="utf-8") as lines:

        def tell(phase: str, done: float) -> None:
            lines.write(json.dumps({"phase": phase, "done": done}) + "\n")
            lines.flush()

        try:
            result = Pilot(request, run.root, tell).run()
        except SafetrainError as error:
            result = {"error": error_to_dict(error), "trials": []}
    write_json(run.probe, result)
    return 0


class Pilot:
    """The model, its data, and the state that every rate starts from."""

    def __init__(self, request: Mapping[str, Any], folder: Path, tell: Tell) -> None:
        """Loads and tokenizes. Raises SafetrainError where that cannot be done."""
        self._end = time.monotonic() + float(request["seconds"])
        self._rates, self._tell = [float(rate) for rate in request["rates"]], tell
        self._settings = from_plain(request["settings"], TrainingSettings)
        self._bucket = int(request["length_bucket"])
        for limit, allow in (
            ("memory_limit", mx.set_memory_limit),
            ("cache_limit", mx.set_cache_limit),
        ):
            if request.get(limit):
                allow(request[limit])
        tell("loading", 0.0)
        loaded = load(
            request["model"],
            dequantize=self._settings.dequantize,
            trust_remote_code=bool(request.get("trust_remote_code")),
        )
        settings = self._settings
        encoder = Encoder(
            loaded.tokenizer, settings.mask_prompt, loaded.vocabulary, settings.thinking
        )
        self._train, self._valid = self._samples(request, encoder, folder)
        self._stepper = Stepper(loaded.model, self._settings, self._settings.seed)
        self._batches = Batches(self._train, self._settings, self._bucket, self._settings.seed)
        self._weights = adapters.weights(loaded.model)
        self._optimizer = dict(tree_flatten(self._stepper.optimizer.state))

    def run(self) -> dict[str, Any]:
        """Tries the rates in turn, as many as there is time for."""
        base = self._evaluate()
        trials: list[dict[str, Any]] = []
        steps = 0
        for number, rate in enumerate(self._rates):
            if any(rate > t["rate"] and not t["finite"] for t in trials):
                continue  # a lower one diverged
            if number and not self._time_for(steps):
                break
            self._tell("pilot", number / len(self._rates))
            if not steps:
                steps = self._affordable()
            trials.append(self._tried(rate, steps))
            if steps < LEAST_STEPS:
                break
        return {"base": base, "steps": steps, "trials": trials}

    def _samples(
        self, request: Mapping[str, Any], encoder: Encoder, folder: Path
    ) -> tuple[Samples, Samples]:
        """Those to learn and those held out: of the validation file, else of the training file."""
        length = self._settings.max_seq_length
        encoded = list(islice(encoder.encode_file(request["train"]), _MOST_SAMPLES))
        if request.get("valid"):
            held_out = list(islice(encoder.encode_file(request["valid"]), _HELD_OUT))
        else:
            every = max(2, len(encoded) // _HELD_OUT)
            held_out = encoded[::every]
            encoded = [one for place, one in enumerate(encoded) if place % every]
        return (
            dataset.write(folder / "train", encoded, length, {}),
            dataset.write(folder / "valid", held_out, length, {}),
        )

    def _affordable(self) -> int:
        """Steps a rate, by the time of the first ones: a share of what is left for each rate."""
        began = time.monotonic()
        for number in range(_TIMED_STEPS):
            if number == 1:
                began = time.monotonic()
            self._step(number, 0.0)
        self._seconds = (time.monotonic() - began) / (_TIMED_STEPS - 1)
        began = time.monotonic()
        self._evaluate()
        self._evaluation = time.monotonic() - began
        for rates in range(len(self._rates), 1, -1):
            steps = self._steps_for(rates)
            if steps >= LEAST_STEPS:
                return min(MOST_STEPS, steps)
        return max(1, self._steps_for(2))

    def _steps_for(self, rates: int) -> int:
        left = self._end - time.monotonic() - rates * self._evaluation
        return int(left / (rates * self._seconds))

    def _time_for(self, steps: int) -> bool:
        return self._end - time.monotonic() >= 0.9 * steps * self._seconds + self._evaluation

    def _tried(self, rate: float, steps: int) -> dict[str, Any]:
        """The loss on the held-out samples after `steps` steps at `rate`, from the same start."""
        adapters.put(self._stepper.model, self._weights)
        self._stepper.restore(self._optimizer)
        first = math.nan
        for number in range(steps):
            loss = self._step(number, rate * min(1.0, (number + 1) / _WARMUP))
            first = loss if math.isnan(first) else first
            if not loss < _HOPELESS * first:
                return {"rate": rate, "loss": None, "finite": False}
        found = self._evaluate()
        finite = math.isfinite(found)
        return {"rate": rate, "loss": found if finite else None, "finite": finite}

    def _step(self, number: int, rate: float) -> float:
        epoch, place = divmod(number, self._batches.steps_per_epoch)
        done = self._stepper.step(self._batches.window(epoch, place), number, rate)
        return done.loss if done.finite else math.inf

    def _evaluate(self) -> float:
        settings = self._settings
        batches = evaluation_batches(self._valid, settings, self._bucket, settings.seed)
        return self._stepper.evaluate(batches)[0]

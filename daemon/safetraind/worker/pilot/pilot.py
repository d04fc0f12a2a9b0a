"""The worker role `pilot`: trains some tens of steps on the job's data at each of several rates.

`worker_messages.pilot_messages` has its request and its result. Every rate starts from the same
adapter and sees the same samples; the losses are those of held-out samples.
"""

from __future__ import annotations

import math
import time
from itertools import islice
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from safetraind.worker.data.encode_chat import Encoder
from safetraind.worker.exchange import Tell, answer, read_request
from safetraind.worker.loading import load
from safetraind.worker.training import adapters, dataset
from safetraind.worker.training.batches import Batches, evaluation_batches
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.step import Stepper
from safetraind.worker_messages.pilot_messages import PILOT, PilotRequest, PilotResult, Trial
from safetraind.worker_messages.role import WorkerProgress

MOST_STEPS, LEAST_STEPS = 60, 10
_MOST_SAMPLES, _HELD_OUT = 2048, 48
_WARMUP = 5  # steps over which the rate rises
_HOPELESS = 2.0  # a loss of a step so many times the first one's only goes up
_TIMED_STEPS = 3  # the first compiles


def main(arguments: list[str]) -> int:
    """Try the rates as the run folder asks. A rate that cannot be tried is a result, not a
    failure.
    """
    request = read_request(arguments[0], PILOT.name, PilotRequest)
    answer(arguments[0], lambda tell: Pilot(request, Path(arguments[0]), tell).run())
    return 0


class Pilot:
    """The model, its data, and the state that every rate starts from."""

    def __init__(self, request: PilotRequest, folder: Path, tell: Tell) -> None:
        """Load and tokenize. Raises SafetrainError where that cannot be done."""
        self._end = time.monotonic() + request.seconds
        self._rates, self._tell = request.rates, tell
        self._settings = settings = request.settings
        self._bucket = request.length_bucket
        if request.memory_limit:
            mx.set_memory_limit(request.memory_limit)
        if request.cache_limit:
            mx.set_cache_limit(request.cache_limit)
        tell(WorkerProgress("loading"))
        loaded = load(
            request.model,
            dequantize=settings.dequantize,
            trust_remote_code=request.trust_remote_code,
        )
        encoder = Encoder(
            loaded.tokenizer, settings.mask_prompt, loaded.vocabulary, settings.thinking
        )
        self._train, self._valid = self._samples(request, encoder, folder)
        self._stepper = Stepper(loaded.model, self._settings, self._settings.seed)
        self._batches = Batches(self._train, self._settings, self._bucket, self._settings.seed)
        self._weights = adapters.weights(loaded.model)
        self._optimizer = dict(tree_flatten(self._stepper.optimizer.state))

    def run(self) -> PilotResult:
        """Try the rates in turn, as many as the time allows."""
        base = self._evaluate()
        trials: list[Trial] = []
        steps = 0
        for number, rate in enumerate(self._rates):
            if any(rate > trial.rate and trial.loss is None for trial in trials):
                continue  # a lower one diverged
            if number and not self._time_for(steps):
                break
            self._tell(WorkerProgress("pilot", number / len(self._rates)))
            if not steps:
                steps = self._affordable()
            trials.append(self._tried(rate, steps))
            if steps < LEAST_STEPS:
                break
        return PilotResult(base, steps, tuple(trials))

    def _samples(
        self, request: PilotRequest, encoder: Encoder, folder: Path
    ) -> tuple[Samples, Samples]:
        """Return the samples to learn and the held-out ones, of the validation file, else of the
        training file.
        """
        length = self._settings.max_seq_length
        encoded = list(islice(encoder.encode_file(request.train), _MOST_SAMPLES))
        if request.valid:
            held_out = list(islice(encoder.encode_file(request.valid), _HELD_OUT))
        else:
            every = max(2, len(encoded) // _HELD_OUT)
            held_out = encoded[::every]
            encoded = [one for place, one in enumerate(encoded) if place % every]
        return (
            dataset.write(folder / "train", encoded, length, {}),
            dataset.write(folder / "valid", held_out, length, {}),
        )

    def _affordable(self) -> int:
        """Return the number of steps for each rate, by the time of the first ones: a share of the
        time left.
        """
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

    def _tried(self, rate: float, steps: int) -> Trial:
        """Return the loss on the held-out samples after `steps` steps at `rate`, from the same
        start.
        """
        adapters.put(self._stepper.model, self._weights)
        self._stepper.restore(self._optimizer)
        first = math.nan
        for number in range(steps):
            loss = self._step(number, rate * min(1.0, (number + 1) / _WARMUP))
            first = loss if math.isnan(first) else first
            if not loss < _HOPELESS * first:
                return Trial(rate, None)
        found = self._evaluate()
        return Trial(rate, found if math.isfinite(found) else None)

    def _step(self, number: int, rate: float) -> float:
        epoch, place = divmod(number, self._batches.steps_per_epoch)
        done = self._stepper.step(self._batches.window(epoch, place), number, rate)
        return done.loss if done.finite else math.inf

    def _evaluate(self) -> float:
        settings = self._settings
        batches = evaluation_batches(self._valid, settings, self._bucket, settings.seed)
        return self._stepper.evaluate(batches)[0]

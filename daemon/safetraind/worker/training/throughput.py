"""The speed of the training, and its remaining time."""

from __future__ import annotations

import time

from safetraind.worker.training.segment import Segment
from safetraind.worker.training.step import Stepped


class Throughput:
    """Times one attempt, from now on."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._began = time.perf_counter()
        self._steps = 0
        self._first = 0.0  # seconds until the first step was done: it compiles and is slower
        self._stepping = 0.0
        self._tokens = 0

    def add(self, done: Stepped) -> None:
        """Count a step."""
        self._first = self._first or time.perf_counter() - self._began
        self._steps += 1
        self._stepping += done.seconds
        self._tokens += done.tokens

    def take_tokens_per_second(self) -> float:
        """Return the real tokens a second within steps since the last call. Evaluations do not
        count.
        """
        speed = self._tokens / max(self._stepping, 1e-9)
        self._stepping, self._tokens = 0.0, 0
        return speed

    def eta(self, steps_left: int) -> float:
        """Return the seconds that `steps_left` steps will take at the mean of this attempt so far,
        and the rests between them.

        The mean is of all elapsed time, so evaluations, checkpoints and answers are in it. Only the
        first step is left out, once there is a second one.
        """
        step = time.perf_counter() - self._began
        if self._steps > 1:
            step = (step - self._first) / (self._steps - 1)
        return step * steps_left + self._segment.rests(step * steps_left)

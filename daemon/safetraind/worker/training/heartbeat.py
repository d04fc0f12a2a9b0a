"""The heartbeat of a rank: what it is doing, and for how long to wait until it says more.

A sum over the ranks needs all of them, so one that hangs stops them all: the training hangs once
the patience of each rank's last beat is over. `processes.rank_watch` judges it.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import deque

from safetrain_shared.codec import to_plain
from safetrain_shared.paths import RunFolder
from safetraind.storage.run_folder import Beat
from safetraind.worker.training import memory_limits

STEP_MULTIPLE = 10  # of the slowest of the last steps: a step that takes longer hangs
LEAST_SECONDS = 30.0  # a new shape is compiled meanwhile, or the machine is busy
FIRST_SECONDS = 600.0  # until two steps are done: their kernels are compiled
PHASE_SECONDS = 3600.0  # loading, evaluating, answering: nothing of them was measured
JOINING_SECONDS = 120.0  # until the ranks are connected: MLX itself gives up after 31
_LAST_STEPS = 50
_FOOTPRINT_SECONDS = 2.0  # between two looks at the footprint: Linux adds up its pages for each


class Heartbeat:
    """Writes one rank's `heartbeat.json`. A disk that refuses it is no reason to stop."""

    def __init__(self, run: RunFolder, *, leads: bool) -> None:
        """`leads`: this is rank 0, whose wait for the others is all computing of theirs."""
        self._path = run.heartbeat
        self._leads = leads
        self._seconds: deque[float] = deque(maxlen=_LAST_STEPS)
        self._since = time.monotonic()
        self._computing = self._waiting = 0.0
        self._footprint, self._footprint_at = 0, -math.inf

    def phase(self, phase: str) -> None:
        """Say what the worker does: one of `events.PHASES`, or `joining`."""
        self._since = time.monotonic()
        known = {"training": patience(self._seconds), "joining": JOINING_SECONDS}
        self._beat(phase, 0, known.get(phase, PHASE_SECONDS))

    def waiting(self, step: int) -> None:
        """Say that this rank's part of a step is done, and that it waits for the others'."""
        now = time.monotonic()
        self._computing, self._since = now - self._since, now
        self._beat("waiting", step, patience(self._seconds))

    def computing(self, step: int) -> None:
        """Say that the sum over all ranks is there."""
        now = time.monotonic()
        self._waiting, self._since = now - self._since, now
        self._seconds.append(self._computing + self._waiting * self._leads)
        self._beat("computing", step, patience(self._seconds))

    def ended(self) -> None:
        """Say that this rank has nothing left to do."""
        self._beat("ended", 0, 0.0)

    def _beat(self, state: str, step: int, seconds: float) -> None:
        now = time.monotonic()
        if now - self._footprint_at >= _FOOTPRINT_SECONDS:
            self._footprint, self._footprint_at = memory_limits.own_footprint(), now
        beat = Beat(
            state,
            now,
            seconds,
            step,
            self._computing,
            self._waiting,
            memory_limits.peak(),
            self._footprint,
        )
        new = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            new.write_text(json.dumps({"format": Beat.FORMAT, **to_plain(beat)}))
            new.replace(self._path)


def patience(seconds: deque[float]) -> float:
    """Return how long to wait for a step, after some that took `seconds` each."""
    if len(seconds) < 2:
        return FIRST_SECONDS
    return max(LEAST_SECONDS, STEP_MULTIPLE * max(seconds))

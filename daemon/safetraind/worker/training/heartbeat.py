"""The heartbeat of a rank: what it is doing, and for how long to wait until it says more.

A sum over the ranks needs all of them, so one that hangs stops them all: the training hangs once
the patience of each rank's last beat is over. `processes.rank_watch` judges it. A thread repeats
the beat of a rank that computes or loads, to show that the process runs, until that takes too long.
Nobody repeats the beat of a rank that waits for the others: as long as one of them computes, that
one beats.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections import deque

from safetrain_shared.codec import to_plain
from safetrain_shared.paths import RunFolder
from safetraind.storage.durable import write_text
from safetraind.storage.run_folder import Beat
from safetraind.worker.training import memory_limits

STEP_MULTIPLE = 10  # of the slowest of the last steps: a step that takes longer hangs
LEAST_SECONDS = 30.0  # for a step, for the next beat of the thread, and for a sum
FIRST_SECONDS = 600.0  # for each of the first two steps, whose kernels are compiled
PHASE_SECONDS = 3600.0  # of loading, evaluating, answering: nothing of them was measured
JOINING_SECONDS = 120.0  # until the ranks are connected: MLX itself gives up after 31
_LAST_STEPS = 50
_BEAT_SECONDS = 2.0


class Heartbeat:
    """Writes one rank's `heartbeat.json`. A disk that refuses it is no reason to stop."""

    def __init__(self, run: RunFolder, *, leads: bool) -> None:
        """`leads`: this is rank 0, whose wait for the others is all computing of theirs."""
        self._path = run.heartbeat
        self._leads = leads
        self._seconds: deque[float] = deque(maxlen=_LAST_STEPS)
        self._since = time.monotonic()
        self._computing = self._waiting = 0.0
        self._footprint = 0
        self._lock = threading.Lock()
        self._repeated: Beat | None = None
        self._repeated_until = 0.0
        threading.Thread(target=self._repeat, daemon=True).start()

    def phase(self, phase: str) -> None:
        """Say what the worker does: one of `events.PHASES`."""
        self._since = time.monotonic()
        limit = self._step_limit() if phase == "training" else PHASE_SECONDS
        self._beat(phase, 0, LEAST_SECONDS, limit)

    def joining(self) -> None:
        """Say that the ranks are being connected. MLX lets no thread run meanwhile."""
        self._beat("joining", 0, JOINING_SECONDS)

    def waiting(self, step: int) -> None:
        """Say that this rank's part of a step is done, and that it waits for the others'."""
        now = time.monotonic()
        self._computing, self._since = now - self._since, now
        self._beat("waiting", step, self._step_seconds())

    def computing(self, step: int) -> None:
        """Say that the sum over all ranks is there, and that this rank computes."""
        now = time.monotonic()
        self._waiting, self._since = now - self._since, now
        self._seconds.append(self._computing + self._waiting * self._leads)
        self._beat("computing", step, LEAST_SECONDS, self._step_limit())

    def ended(self) -> None:
        """Say that this rank has nothing left to do."""
        self._beat("ended", 0, 0.0)

    def _step_seconds(self) -> float:
        return max(LEAST_SECONDS, STEP_MULTIPLE * max(self._seconds, default=0.0))

    def _step_limit(self) -> float:
        return FIRST_SECONDS if len(self._seconds) < 2 else self._step_seconds()

    def _beat(self, state: str, step: int, patience: float, repeat: float = 0.0) -> None:
        """Write a beat, which the thread repeats for `repeat` seconds."""
        now, peak = time.monotonic(), memory_limits.peak()
        own, waited = self._computing, self._waiting
        beat = Beat(state, now, patience, step, own, waited, peak, self._footprint)
        with self._lock:
            self._repeated, self._repeated_until = beat, now + repeat
            self._write(beat)

    def _repeat(self) -> None:
        while True:
            # Here, because Linux adds up the pages of the process for it.
            self._footprint = memory_limits.own_footprint()
            time.sleep(_BEAT_SECONDS)
            with self._lock:
                now = time.monotonic()
                if self._repeated is not None and now < self._repeated_until:
                    self._write(dataclasses.replace(self._repeated, time=now))

    def _write(self, beat: Beat) -> None:
        with contextlib.suppress(OSError):
            text = json.dumps({"format": Beat.FORMAT, **to_plain(beat)})
            write_text(self._path, text, synced=False)

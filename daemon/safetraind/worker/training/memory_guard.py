"""Watches memory during a training: frees caches, holds the run, and makes it leave in time.

A thread takes a reading every two seconds; the readings are judged before each step. A process that
grows near its budget frees its cached buffers. While other programs need memory the run holds, so
that they can finish their work. If they still need it after that, or the pressure becomes critical,
the worker exits with a checkpoint, and the daemon starts it again when memory is available. A step
that does not end while the pressure is critical is aborted: the last checkpoint is whole, and the
run resumes exactly.

Pressure alone does not say that others need memory. macOS's warning level is an occupancy: pages
that are not compressed are fewer than half of all. A training that takes its planned part of a
small Mac keeps the machine at that level, and holding changes nothing. So the level that the
machine has once the training has settled, or that it kept after the training left for it before,
counts as normal.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import mlx.core as mx

from safetrain_shared.errors import EXIT_MEMORY
from safetrain_shared.events import Notice, Outcome
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import Plan
from safetraind import host
from safetraind.host import Pressure
from safetraind.worker.training.event_sink import EventSink

SAMPLE_SECONDS = 2.0
BREAK_OFF_SECONDS = 20.0  # of critical pressure in one step
_LOOK_SECONDS = 0.25
# Steps after which a training has taken its memory and the others have made way for it.
SETTLING_STEPS = 2
# Swap that grows by as much within the window: others need memory. Less is macOS tidying up.
SWAP_SECONDS = 30.0
SWAP_GROWTH = 256 << 20


class Strain(IntEnum):
    """The response that a reading asks for, in order of gravity."""

    NONE = 0
    NEAR = 1  # the process is near its budget: caches are given back
    SHORT = 2  # others need memory: hold
    CRITICAL = 3  # leave


@dataclass(frozen=True, slots=True)
class Reading:
    """Memory at one moment: this process's footprint and the system's swap in use, bytes, and
    `time`, monotonic seconds.
    """

    footprint: int
    pressure: Pressure
    swap: int
    time: float = 0.0


def read() -> Reading:
    """Take a reading, in about a millisecond and without starting a process."""
    now = time.monotonic()
    return Reading(host.footprint(os.getpid()), host.pressure(), host.swap_used(), now)


@dataclass(frozen=True, slots=True)
class Usual:
    """Levels that are normal on this machine. `warning`: the warning level; `swap`: bytes in
    use.
    """

    warning: bool = False
    swap: int = 0


def judge(reading: Reading, usual: Usual, budget: int, high: float) -> Strain:
    """Return the strain of a reading.

    `budget`: bytes for the whole process, 0 for none. `high`: the share of it from which the
    process counts as near its budget.
    """
    if reading.pressure is Pressure.CRITICAL:
        return Strain.CRITICAL
    if reading.pressure is Pressure.WARNING and (
        not usual.warning or reading.swap - usual.swap >= SWAP_GROWTH
    ):
        return Strain.SHORT
    return Strain.NEAR if 0 < high * budget <= reading.footprint else Strain.NONE


class Guard:
    """The guard of one training. `before_step` acts; its thread only breaks a step off."""

    def __init__(
        self,
        plan: Plan,
        sink: EventSink,
        *,
        read: Callable[[], Reading] = read,
        break_off: Callable[[], None] = lambda: os._exit(EXIT_MEMORY),
        sample_seconds: float = SAMPLE_SECONDS,
    ) -> None:
        """`read` and `break_off` are replaced in tests."""
        self._settings, self._budget, self._sink = plan.settings, plan.memory_budget, sink
        self._marker = sink.run.left_at_warning
        self._warning_is_usual = self._marker.exists()
        self._steps, self._settled = 0, False
        self._swaps: deque[Reading] = deque()  # of the last seconds, the oldest first
        self._lock = threading.Lock()
        self._read, self._break_off, self._sample_seconds = read, break_off, sample_seconds
        self._highest = 0  # footprint
        self.strain = Strain.NONE  # the gravest since the step before
        self._critical_since = 0.0
        self._closed = threading.Event()

    def __enter__(self) -> Guard:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def before_step(self) -> Outcome | None:
        """Give cached buffers back and hold as long as that helps. Return the outcome with which to
        leave, None to continue.
        """
        self._critical_since = 0.0
        self._settle()
        seen, self.strain = self.strain, Strain.NONE
        if seen is Strain.NONE:
            return None
        mx.clear_cache()
        reading = self._taken()
        strain = self._judged(reading)
        if strain is Strain.SHORT:
            self._sink.phase("holding")
            self._sink.emit(Notice(_finding("train.holding", reading)))
            strain, reading = self._hold(reading)
        if strain < Strain.SHORT:
            return None
        if reading.pressure is Pressure.WARNING:
            self._marker.touch()
        needed = max(self._highest, reading.footprint)
        return Outcome("paused", _finding("train.memory_short", reading, needed=needed))

    def _settle(self) -> None:
        """Take the level during the first steps for the usual one."""
        if not self._settled:
            self._settled = self._steps == SETTLING_STEPS
            self._steps += 1
            with self._lock:
                self._swaps.clear()  # what was swapped so far made way for this training
            if self._taken().pressure is Pressure.WARNING:
                self._warning_is_usual = True

    def _hold(self, reading: Reading) -> tuple[Strain, Reading]:
        """Wait until memory was calm for `calm_seconds`, for `hold_seconds` at most, or until an
        intent.
        """
        began = calm_since = time.monotonic()
        strain = self._judged(reading)
        while strain is not Strain.CRITICAL and not self._sink.intent():
            now = time.monotonic()
            if strain is Strain.SHORT:
                calm_since = now
            elif now - calm_since >= self._settings.calm_seconds:
                break
            if now - began >= self._settings.hold_seconds:
                return max(strain, Strain.SHORT), reading
            time.sleep(_LOOK_SECONDS)
            reading = self._taken()
            strain = self._judged(reading)
        return (Strain.NONE if self._sink.intent() else strain), reading

    def _taken(self) -> Reading:
        reading = self._read()
        with self._lock:
            self._highest = max(self._highest, reading.footprint)
            while self._swaps and reading.time - self._swaps[0].time > SWAP_SECONDS:
                self._swaps.popleft()
            self._swaps.append(reading)
        return reading

    def _judged(self, reading: Reading) -> Strain:
        if self._settings.ignore_pressure:
            reading = dataclasses.replace(reading, pressure=Pressure.UNKNOWN)
        with self._lock:
            swap = min((seen.swap for seen in self._swaps), default=reading.swap)
        usual = Usual(self._warning_is_usual, swap) if self._settled else Usual(True, reading.swap)
        return judge(reading, usual, self._budget, self._settings.memory_high)

    def _watch(self) -> None:
        while not self._closed.wait(self._sample_seconds):
            strain = self._judged(self._taken())
            self.strain = max(self.strain, strain)
            now = time.monotonic()
            if strain is not Strain.CRITICAL:
                self._critical_since = 0.0
            elif not self._critical_since:
                self._critical_since = now
            elif now - self._critical_since >= BREAK_OFF_SECONDS:
                self._break_off()


def _finding(code: str, reading: Reading, **more: int) -> Finding:
    args = {"footprint": reading.footprint, "swap": reading.swap, **more}
    return Finding(code, Status.WARNING, args=args)

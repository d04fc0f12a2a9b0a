"""Times whole commands from outside, as a person waits for them: elapsed and CPU seconds."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

SCREEN = (24, 80)  # rows, columns
_PATIENCE_SECONDS = 60.0

Command = Sequence[str]
Environment = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds from start to end: `wall` on the clock, `cpu` of user and system in the process."""

    wall: float
    cpu: float


def interleaved(rounds: int, measures: Mapping[str, Callable[[], Time]]) -> dict[str, list[Time]]:
    """Each measure once a round, in turn, so that what else the machine does hits all alike.

    A round before the first warms files and caches and does not count.
    """
    times: dict[str, list[Time]] = {name: [] for name in measures}
    for _round in range(rounds + 1):
        for name, measure in measures.items():
            times[name].append(measure())
    return {name: taken[1:] for name, taken in times.items()}


def whole(command: Command, environment: Environment) -> Time:
    """The command from its start to its end, its output in a pipe. Ends the run where it fails."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _pid, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not said:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{said.decode()}")
    return Time(wall, usage.ru_utime + usage.ru_stime)


def until_shown(command: Command, environment: Environment, marks: Sequence[str]) -> list[Time]:
    """The command on a terminal of its own, until each of `marks` was on the screen, in order.

    It is then left with `q`. CPU seconds come in the ticks of the system, 10 ms on Linux.
    """
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", *SCREEN, 0, 0))
    began = time.perf_counter()
    process = psutil.Popen(
        command, env=environment, stdin=inside, stdout=inside, stderr=inside, start_new_session=True
    )
    os.close(inside)
    try:
        times, seen = [], b""
        for mark in marks:
            while mark.encode() not in seen:
                seen += _more(terminal, seen)
            used = process.cpu_times()
            times.append(Time(time.perf_counter() - began, used.user + used.system))
        os.write(terminal, b"q")
        with contextlib.suppress(OSError):  # Linux: EIO at the end; macOS: nothing to read
            while os.read(terminal, 1 << 16):
                pass
        return times
    finally:
        process.terminate()
        process.wait()
        os.close(terminal)


def _more(terminal: int, seen: bytes) -> bytes:
    if not select.select([terminal], [], [], _PATIENCE_SECONDS)[0]:
        raise SystemExit(f"nothing more on the screen after:\n{seen.decode(errors='replace')}")
    return os.read(terminal, 1 << 16)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some figures and their quartiles, which a busy moment does not move."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """At least two values."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)

"""The small files of a run's folder: which worker was started, what it does, how it ended."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Launch:
    """`launch.json`, written before each worker. `seq_floor`: exclusive lower bound for the next
    event number; `boot_id` names the run of the machine.
    """

    FORMAT: ClassVar[int] = 1

    role: str = ""
    attempt: int = 1
    seq_floor: int = 0
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class KeeperNote:
    """`exit.json`: how a worker ended, written by `processes.keeper`, which imports none of this.

    `oom_kills`: kills for memory meanwhile, None where that is not known. `footprint`: bytes, the
    last that was seen; `pressure`: macOS' level then. `ended`: seconds since the epoch, UTC.
    `peer`: the rank for whose end the keeper killed this one; -1: none.
    """

    FORMAT: ClassVar[int] = 1

    attempt: int = 0
    role: str = ""
    code: int = 0
    signal: int = 0
    oom_kills: int | None = None
    footprint: int = 0
    pressure: int = 0
    ended: float = 0.0
    peer: int = -1


@dataclass(frozen=True, slots=True)
class Beat:
    """`heartbeat.json` of one of several ranks, replaced before and after each sum over them, and
    every two seconds while it computes.

    `state`: `computing`, `waiting` (for the others), `ended`, or a phase of the worker. `time`:
    seconds of the machine's monotonic clock; `patience`: how long to wait for the next beat.
    `step_seconds`, `wait_seconds`: of the last step, its own computing and its wait for the others.
    `peak`, `footprint`: bytes.
    """

    FORMAT: ClassVar[int] = 1

    state: str = ""
    time: float = 0.0
    patience: float = 0.0
    step: int = 0
    step_seconds: float = 0.0
    wait_seconds: float = 0.0
    peak: int = 0
    footprint: int = 0


def set_odd_aside(run: Path) -> None:
    """Rename what is neither a file nor a folder in a run folder, to `NAME.aside-N`.

    Who opens a FIFO or a device may wait for ever, and a link may lead to one, or to itself.
    """
    with contextlib.suppress(OSError):
        for name in list(_odd(run)):
            number = 1
            while os.path.lexists(aside := run / f"{name}.aside-{number}"):
                number += 1
            (run / name).rename(aside)


def _odd(run: Path) -> Iterator[str]:
    with os.scandir(run) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) or ".aside-" in entry.name:
                continue
            try:
                mode = entry.stat().st_mode
            except OSError:  # a link that leads nowhere
                mode = 0
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISSOCK(mode)):
                yield entry.name

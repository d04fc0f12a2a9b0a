"""`python -m benchmarks.bench_cli`: how fast the commands feel, against the least they could cost.

Every figure is of a whole process, started as a shell starts it, against a real safetraind. The
floors are measured in the same run, in turn with ours. Targets are for the time on the clock; CPU
time tells on a busy machine what a quiet one would need.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cli import machine
from benchmarks.cli.timing import Spread, Time, interleaved, spread, until_shown, whole
from tests.harness import DaemonProcess

REPORT = Path("reports/cli.json")
SAFETRAIN = str(Path(sys.executable).parent / "safetrain")
_FLOORS = Path(__file__).parent / "cli"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise: seconds, or how many times the floor, that the median may not exceed."""

    name: str
    unit: str
    target: float
    measured: Spread
    cpu: Spread
    times: dict[str, list[Time]]

    @property
    def kept(self) -> bool:
        """Whether the median on the clock is within the target."""
        return self.measured.median <= self.target

    def to_json(self) -> dict[str, object]:
        """All of it, each single time included."""
        return {**dataclasses.asdict(self), "kept": self.kept}


def main() -> int:
    """Prints the table and writes the report; 0 where every target was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="of help, status and watch")
    parser.add_argument("--plots", type=int, default=5, help="rounds of plot")
    parser.add_argument("--events", type=int, default=100_000, help="that plot draws")
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        verdicts = _measured(Path(name), chosen.rounds, chosen.plots, chosen.events)
    _write(verdicts, load)
    _print(verdicts, load)
    return 0 if all(verdict.kept for verdict in verdicts) else 1


def _measured(folder: Path, rounds: int, plots: int, count: int) -> list[Verdict]:
    with machine.running(folder) as daemon:
        environment = {**daemon.environment(), "TERM": "xterm-256color"}
        told = str(machine.told(daemon, folder, count))
        bare_help, bare_status = _floor("help", "--help"), _floor("status", str(daemon.home.socket))
        verdicts = [
            _against_floor("--help", 1.5, bare_help, environment, rounds),
            _against_floor("status", 1.25, bare_status, environment, rounds),
            _plot(daemon, told, count, environment, plots),
        ]
        job = str(machine.training(daemon, folder))
        return [*verdicts, *_watch(job, environment, rounds)]


def _floor(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(_FLOORS / f"floor_{name}.py"), *arguments]


def _against_floor(
    argument: str, target: float, floor: Sequence[str], environment: dict[str, str], rounds: int
) -> Verdict:
    ours = [SAFETRAIN, argument]
    measures = {
        "ours": lambda: whole(ours, environment),
        "floor": lambda: whole(floor, environment),
    }
    times = interleaved(rounds, measures)
    pairs = list(zip(times["ours"], times["floor"], strict=True))
    return Verdict(
        argument,
        "×",
        target,
        spread([ours.wall / floor.wall for ours, floor in pairs]),
        spread([ours.cpu / floor.cpu for ours, floor in pairs]),
        times,
    )


def _plot(
    daemon: DaemonProcess, job: str, count: int, environment: dict[str, str], rounds: int
) -> Verdict:
    """Its CPU time is that of the command and of the daemon that reads for it."""

    def drawn() -> Time:
        before = machine.cpu_seconds(daemon)
        time = whole([SAFETRAIN, "plot", job], environment)
        return Time(time.wall, time.cpu + machine.cpu_seconds(daemon) - before)

    times = interleaved(rounds, {"ours": drawn})
    return _absolute(f"plot, {count:,} events", 3.0, times["ours"])


def _watch(job: str, environment: dict[str, str], rounds: int) -> list[Verdict]:
    """The first frame, and the first that shows a step."""
    command = [SAFETRAIN, "watch", job]
    marks = ("q leaves", "tokens/s")
    taken = [until_shown(command, environment, marks) for _ in range(rounds + 1)][1:]
    first, step = zip(*taken, strict=True)
    return [
        _absolute("watch, first frame", 0.3, first),
        _absolute("watch, first step shown", 0.3, step),
    ]


def _absolute(name: str, target: float, times: Sequence[Time]) -> Verdict:
    return Verdict(
        name,
        "s",
        target,
        spread([time.wall for time in times]),
        spread([time.cpu for time in times]),
        {"ours": list(times)},
    )


def _write(verdicts: Sequence[Verdict], load: float) -> None:
    about = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "load_before": load,
    }
    REPORT.parent.mkdir(exist_ok=True)
    report = {"machine": about, "verdicts": [verdict.to_json() for verdict in verdicts]}
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _print(verdicts: Sequence[Verdict], load: float) -> None:
    print(f"\nMedian and quartiles; {os.cpu_count()} cores, load {load:.1f} before")
    print(f"  {'':26} {'target':>8}   {'on the clock':24} {'CPU':24}")
    for verdict in verdicts:
        target = f"≤ {verdict.target:g} {verdict.unit}"
        wall, cpu = (_written(s, verdict.unit) for s in (verdict.measured, verdict.cpu))
        sign = "✓" if verdict.kept else "✗"
        print(f"{sign} {verdict.name:26} {target:>8}   {wall:24} {cpu:24}")
    print(f"\nEach single time is in {REPORT}.")


def _written(figures: Spread, unit: str) -> str:
    return f"{figures.median:.2f} {unit} ({figures.low:.2f} to {figures.high:.2f})"


if __name__ == "__main__":
    sys.exit(main())

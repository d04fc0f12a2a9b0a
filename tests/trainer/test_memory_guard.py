"""The memory guard: what it judges, when it holds, leaves and breaks off, and what it leaves be."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.events import Notice, Outcome, PhaseChanged, StepDone
from safetrain_shared.jobs import Plan
from safetrain_shared.paths import RunFolder
from safetrain_shared.settings import TrainingSettings
from safetraind.host import Pressure
from safetraind.storage import event_file
from safetraind.storage.run_folder import Launch
from safetraind.worker.training import memory_guard
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.memory_guard import (
    SETTLING_STEPS,
    SWAP_GROWTH,
    SWAP_SECONDS,
    Guard,
    Reading,
    Strain,
    Usual,
    judge,
)
from tests.harness import wait_for
from tests.trainer.runs import make_run

GB = 1 << 30
CALM = Reading(GB, Pressure.NORMAL, 0)
FULL = Reading(4 * GB, Pressure.NORMAL, 0)
SHORT = Reading(GB, Pressure.WARNING, GB)
CRITICAL = Reading(GB, Pressure.CRITICAL, GB)


@pytest.mark.parametrize(
    ("reading", "usual", "strain"),
    [
        (CALM, Usual(), Strain.NONE),
        (FULL, Usual(), Strain.NEAR),
        (SHORT, Usual(), Strain.SHORT),
        (SHORT, Usual(warning=True, swap=GB), Strain.NONE),
        (SHORT, Usual(warning=True, swap=GB - SWAP_GROWTH), Strain.SHORT),
        (Reading(GB, Pressure.NORMAL, 9 * GB), Usual(), Strain.NONE),
        (CRITICAL, Usual(), Strain.CRITICAL),
        (CRITICAL, Usual(warning=True, swap=GB), Strain.CRITICAL),
        (Reading(GB, Pressure.UNKNOWN, GB), Usual(), Strain.NONE),
    ],
)
def test_a_reading_asks_for_something_only_where_others_need_memory(
    reading: Reading, usual: Usual, strain: Strain
) -> None:
    assert judge(reading, usual, 4 * GB, high=0.95) is strain


def test_without_a_budget_no_process_is_near_it() -> None:
    assert judge(FULL, Usual(), 0, high=0.95) is Strain.NONE


class Machine:
    """What the guard reads: `now`, and `once_held` from when the training holds."""

    def __init__(self, folder: Path, now: Reading = CALM) -> None:
        self._folder = folder
        self.change(now)

    def change(self, now: Reading, *, once_held: Reading | None = None) -> None:
        self.read = threading.Event()
        self.now, self.once_held = now, once_held

    def __call__(self) -> Reading:
        if self.once_held is not None and "train.holding" in told(self._folder):
            self.now = self.once_held
        self.read.set()
        return self.now


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[EventSink]:
    made = EventSink(RunFolder(tmp_path), Launch())
    yield made
    made.close()


def guarded(sink: EventSink, machine: Machine, **settings: Any) -> Guard:
    chosen = TrainingSettings(**{"calm_seconds": 0, "hold_seconds": 60, **settings})
    plan = Plan(chosen, "model", memory_budget=4 * GB)
    return Guard(plan, sink, read=machine, sample_seconds=0.01)


def settle(watching: Guard) -> None:
    """The first steps, of a machine at ease unless it is at warning."""
    for _ in range(SETTLING_STEPS + 1):
        assert watching.before_step() is None


def told(tmp_path: Path) -> list[str]:
    """Phases and notices, in order."""
    bodies = [read.event.body for read in event_file.read(RunFolder(tmp_path).events)]
    return [
        body.phase if isinstance(body, PhaseChanged) else body.finding.code
        for body in bodies
        if isinstance(body, PhaseChanged | Notice)
    ]


def seen_by(machine: Machine, watching: Guard) -> Guard:
    """The guard, once its thread has judged what the machine is now."""
    assert machine.read.wait(60)
    wait_for(lambda: watching.strain is not Strain.NONE, 60)
    return watching


def test_a_calm_machine_is_left_alone(sink: EventSink, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with guarded(sink, machine) as watching:
        assert machine.read.wait(60)
        settle(watching)
        assert watching.before_step() is None
    assert told(tmp_path) == []


def test_a_process_near_its_budget_only_gives_its_caches_back(
    sink: EventSink, tmp_path: Path
) -> None:
    machine = Machine(tmp_path, FULL)
    with guarded(sink, machine) as watching:
        assert seen_by(machine, watching).before_step() is None
    assert told(tmp_path) == []


def test_a_level_that_rose_is_held_for_and_then_it_goes_on(sink: EventSink, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with guarded(sink, machine) as watching:
        settle(watching)
        machine.change(SHORT, once_held=CALM)
        assert seen_by(machine, watching).before_step() is None
    assert told(tmp_path) == ["holding", "train.holding"]


def test_a_machine_at_constant_warning_is_never_held_for(sink: EventSink, tmp_path: Path) -> None:
    machine = Machine(tmp_path, SHORT)
    with guarded(sink, machine, hold_seconds=0) as watching:
        for _ in range(50):
            machine.read.clear()
            assert machine.read.wait(60)  # by the thread
            assert watching.before_step() is None
        assert watching.strain is Strain.NONE
    assert told(tmp_path) == []


def test_the_level_that_the_training_itself_brings_about_is_usual(
    sink: EventSink, tmp_path: Path
) -> None:
    machine = Machine(tmp_path)
    with guarded(sink, machine, hold_seconds=0) as watching:
        assert watching.before_step() is None
        machine.change(SHORT)  # in its first step
        settle(watching)
        assert watching.before_step() is None
    assert told(tmp_path) == []


def test_at_constant_warning_swap_that_grows_is_held_for(sink: EventSink, tmp_path: Path) -> None:
    machine = Machine(tmp_path, SHORT)
    grown = dataclasses.replace(SHORT, swap=SHORT.swap + SWAP_GROWTH, time=1.0)
    later = dataclasses.replace(grown, time=2.0 + SWAP_SECONDS)
    with guarded(sink, machine) as watching:
        settle(watching)
        machine.change(grown, once_held=later)
        assert seen_by(machine, watching).before_step() is None
    assert told(tmp_path) == ["holding", "train.holding"]


def test_where_others_go_on_needing_memory_it_leaves_with_what_is_needed_to_come_back(
    sink: EventSink, tmp_path: Path
) -> None:
    machine = Machine(tmp_path)
    with guarded(sink, machine, hold_seconds=0) as watching:
        settle(watching)
        machine.change(dataclasses.replace(SHORT, footprint=3 * GB), once_held=SHORT)
        left = seen_by(machine, watching).before_step()
    assert left is not None and left.outcome == "paused" and left.cause is not None
    assert left.cause.code == "train.memory_short"
    assert left.cause.args["needed"] == 3 * GB


def test_a_level_for_which_it_left_once_is_no_reason_to_leave_again(
    sink: EventSink, tmp_path: Path
) -> None:
    machine = Machine(tmp_path)
    with guarded(sink, machine, hold_seconds=0) as watching:
        settle(watching)
        machine.change(SHORT)
        assert seen_by(machine, watching).before_step() is not None
    machine.change(CALM)
    with guarded(sink, machine, hold_seconds=0) as watching:
        settle(watching)
        machine.change(SHORT)
        for _ in range(50):
            assert watching.before_step() is None
    assert told(tmp_path) == ["holding", "train.holding"]


def test_a_critical_system_is_left_at_once(sink: EventSink, tmp_path: Path) -> None:
    machine = Machine(tmp_path, CRITICAL)
    with guarded(sink, machine, hold_seconds=3600) as watching:
        left = seen_by(machine, watching).before_step()
    assert left is not None and left.outcome == "paused"
    assert told(tmp_path) == []


def test_who_asked_to_ignore_pressure_is_neither_held_nor_sent_away(
    sink: EventSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_guard, "BREAK_OFF_SECONDS", 0.0)
    machine = Machine(tmp_path, CRITICAL)
    with guarded(sink, machine, ignore_pressure=True) as watching:
        for _ in range(10):
            machine.read.clear()
            assert machine.read.wait(60)
            assert watching.before_step() is None
    assert told(tmp_path) == []


def test_a_wish_ends_the_holding(sink: EventSink, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with guarded(sink, machine, hold_seconds=3600) as watching:
        settle(watching)
        machine.change(SHORT)
        RunFolder(tmp_path).intent.write_text("cancel")
        assert seen_by(machine, watching).before_step() is None


def test_a_step_that_does_not_end_while_it_is_critical_is_broken_off(
    sink: EventSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_guard, "BREAK_OFF_SECONDS", 0.05)
    broken = threading.Event()
    plan = Plan(TrainingSettings(), "model", memory_budget=4 * GB)
    machine = Machine(tmp_path, CRITICAL)
    watching = Guard(plan, sink, read=machine, break_off=broken.set, sample_seconds=0.01)
    with watching:
        assert broken.wait(60)


# The machine as `PRESSURE` says, and a guard that looks a hundred times a second.
_PRESSED_WORKER = """\
import os, sys
from safetraind import host
from safetraind.worker.training import memory_guard, train
host.pressure = lambda: host.Pressure(os.environ["PRESSURE"])
memory_guard.SAMPLE_SECONDS = memory_guard.Guard.__init__.__kwdefaults__["sample_seconds"] = 0.01
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("pressure", ["normal", "warning"])
def test_at_constant_warning_a_training_ends_without_a_hold_as_without_pressure(
    pressure: str, tmp_path: Path, model: Path, data: tuple[Path, Path]
) -> None:
    run = make_run(tmp_path, model, data, hold_seconds=600, num_epochs=1)
    run.folder.launch.write_text('{"role": "train", "attempt": 1, "seq_floor": 0}')
    command = [sys.executable, "-c", _PRESSED_WORKER, str(run.folder.root)]
    done = subprocess.run(
        command,
        env={**os.environ, "MLX_DISABLE_COMPILE": "1", "PRESSURE": pressure},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [outcome.outcome for outcome in run.of(Outcome)] == ["succeeded"]
    assert "train.holding" not in run.codes()
    assert "holding" not in [body.phase for body in run.of(PhaseChanged)]
    assert len(run.of(StepDone)) == run.of(StepDone)[0].total_steps > 4

"""The memory guard: what it judges, when it holds, leaves and breaks off, and a real shortage."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from safetrain_shared.events import Notice, PhaseChanged
from safetrain_shared.jobs import Plan
from safetrain_shared.paths import RunFolder
from safetrain_shared.settings import TrainingSettings
from safetraind.host import Pressure
from safetraind.storage import event_file
from safetraind.worker.training import memory_guard
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.memory_guard import Guard, Reading, Strain, judge
from tests.harness import wait_for

GB = 1 << 30
CALM = Reading(GB, Pressure.NORMAL, 0)
FULL = Reading(4 * GB, Pressure.NORMAL, 0)
SHORT = Reading(GB, Pressure.WARNING, GB)
CRITICAL = Reading(GB, Pressure.CRITICAL, GB)


@pytest.mark.parametrize(
    ("reading", "strain"),
    [
        (CALM, Strain.NONE),
        (FULL, Strain.NEAR),
        (SHORT, Strain.SHORT),
        (CRITICAL, Strain.CRITICAL),
        (Reading(GB, Pressure.UNKNOWN, GB), Strain.NONE),
    ],
)
def test_a_reading_is_judged_by_pressure_first(reading: Reading, strain: Strain) -> None:
    assert judge(reading, 4 * GB, high=0.95) is strain


def test_without_a_budget_no_process_is_near_it() -> None:
    assert judge(FULL, 0, high=0.95) is Strain.NONE


class Readings:
    """What the guard reads: one after the other, the last one for ever; `seen` after the first."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self.seen = threading.Event()
        self._left = list(readings)

    def __call__(self) -> Reading:
        reading = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        self.seen.set()
        return reading


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[EventSink]:
    made = EventSink(RunFolder(tmp_path), {})
    yield made
    made.close()


def guarded(sink: EventSink, readings: Readings, *, calm: int = 0, hold: int = 60) -> Guard:
    settings = TrainingSettings(calm_seconds=calm, hold_seconds=hold)
    plan = Plan(settings, "model", memory_budget=4 * GB)
    return Guard(plan, sink, read=readings, sample_seconds=0.01)


def told(tmp_path: Path) -> list[str]:
    """Phases and notices, in order."""
    bodies = [read.event.body for read in event_file.read(RunFolder(tmp_path).events)]
    return [
        body.phase if isinstance(body, PhaseChanged) else body.finding.code
        for body in bodies
        if isinstance(body, PhaseChanged | Notice)
    ]


def test_a_calm_machine_is_left_alone(sink: EventSink, tmp_path: Path) -> None:
    readings = Readings([CALM])
    with guarded(sink, readings) as watching:
        assert readings.seen.wait(60)
        assert watching.before_step() is None
    assert told(tmp_path) == []


def seen_by(readings: Readings, watching: Guard) -> Guard:
    """The guard, once its thread has judged the first reading."""
    assert readings.seen.wait(60)
    wait_for(lambda: watching.strain is not Strain.NONE)
    return watching


def test_a_process_near_its_budget_only_gives_its_caches_back(
    sink: EventSink, tmp_path: Path
) -> None:
    readings = Readings([FULL])
    with guarded(sink, readings) as watching:
        assert seen_by(readings, watching).before_step() is None
    assert told(tmp_path) == []


def test_a_short_system_is_held_for_and_then_it_goes_on(sink: EventSink, tmp_path: Path) -> None:
    class ShortUntilHeld(Readings):
        def __call__(self) -> Reading:
            super().__call__()
            return CALM if "train.holding" in told(tmp_path) else SHORT

    readings = ShortUntilHeld([SHORT])
    with guarded(sink, readings) as watching:
        assert seen_by(readings, watching).before_step() is None
    assert told(tmp_path) == ["holding", "train.holding"]


def test_a_system_that_stays_short_is_left_with_what_is_needed_to_come_back(
    sink: EventSink,
) -> None:
    readings = Readings([Reading(3 * GB, Pressure.WARNING, 0), SHORT])
    with guarded(sink, readings, hold=0) as watching:
        left = seen_by(readings, watching).before_step()
    assert left is not None and left.outcome == "paused" and left.cause is not None
    assert left.cause.code == "train.memory_short"
    assert left.cause.args["needed"] == 3 * GB


def test_a_critical_system_is_left_at_once(sink: EventSink, tmp_path: Path) -> None:
    readings = Readings([CRITICAL])
    with guarded(sink, readings, hold=3600) as watching:
        left = seen_by(readings, watching).before_step()
    assert left is not None and left.outcome == "paused"
    assert told(tmp_path) == []


def test_a_wish_ends_the_holding(sink: EventSink, tmp_path: Path) -> None:
    RunFolder(tmp_path).intent.write_text("cancel")
    readings = Readings([SHORT])
    with guarded(sink, readings, hold=3600) as watching:
        assert seen_by(readings, watching).before_step() is None


def test_a_step_that_does_not_end_while_it_is_critical_is_broken_off(
    sink: EventSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_guard, "BREAK_OFF_SECONDS", 0.05)
    broken = threading.Event()
    plan = Plan(TrainingSettings(), "model", memory_budget=4 * GB)
    readings = Readings([CRITICAL])
    watching = Guard(plan, sink, read=readings, break_off=broken.set, sample_seconds=0.01)
    with watching:
        assert broken.wait(60)

"""The time left that a training tells has its rests in it."""

from __future__ import annotations

import pytest

from safetrain_shared.settings import TrainingSettings
from safetraind.worker.training import segment, throughput
from safetraind.worker.training.segment import Segment
from safetraind.worker.training.step import Stepped
from safetraind.worker.training.throughput import Throughput

STEP = Stepped(True, 1.0, 1.0, learned=50, tokens=100, samples=1, seconds=60.0)


class Clock:
    """A clock that stands until it is moved on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(segment, "time", clock)
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def time_left(clock: Clock, settings: TrainingSettings, steps_left: int) -> float:
    """What is told after 21 steps of a minute each, the first of them slower."""
    timed = Throughput(Segment(settings, step=0))
    clock.now += 30
    for _ in range(21):
        clock.now += 60
        timed.add(STEP)
    return timed.eta(steps_left)


def test_without_segments_it_is_that_of_the_steps(clock: Clock) -> None:
    assert time_left(clock, TrainingSettings(rest_minutes=5.0), 100) == pytest.approx(6000)


@pytest.mark.parametrize(
    ("steps_left", "rests"), [(23, 0), (24, 1), (68, 1), (69, 2), (100, 2), (600, 13)]
)
def test_the_rests_begin_with_the_end_of_this_segment(
    clock: Clock, steps_left: int, rests: int
) -> None:
    settings = TrainingSettings(segment_minutes=45.0, rest_minutes=5.0)
    left = time_left(clock, settings, steps_left)
    assert left == pytest.approx(60 * steps_left + 300 * rests)

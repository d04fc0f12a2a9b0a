"""How far a job is and when it will end, whatever the clock on the wall did meanwhile."""

from __future__ import annotations

import pytest

from safetrain_shared.events import Event, StateChanged, StepDone
from safetrain_shared.history import Progress
from safetrain_shared.jobs import JobState

STEPS = 100


def after(times: list[float], paces: list[float]) -> Progress:
    """Steps from 1 on: when each was written, and the seconds a step that its worker then found."""
    progress = Progress()
    for number, (time, throughput) in enumerate(zip(times, paces, strict=True), start=1):
        eta = throughput * (STEPS - number)
        body = StepDone(number, 0, number, STEPS, 1.0, 1e-4, 1.0, 1, 1.0, 1, 1, eta)
        progress.take(Event(number, 1, time, "step", body))
    return progress


STEADY = [float(n) for n in range(40)]
SLEPT = [float(n) if n < 20 else n + 8 * 3600.0 for n in range(40)]
SET_BACK = [float(n) if n < 20 else n - 3600.0 for n in range(40)]


@pytest.mark.parametrize("times", [STEADY, SLEPT, SET_BACK], ids=["steady", "slept", "set back"])
def test_the_range_follows_the_workers_pace_and_no_clock_on_the_wall(times: list[float]) -> None:
    low, high = after(times, [1.0] * 40).eta_range() or (0.0, 0.0)
    assert (low, high) == (pytest.approx(0.9 * 60), pytest.approx(1.1 * 60))


def test_the_range_is_as_wide_as_the_pace_was_uneven_of_late() -> None:
    uneven = after(STEADY, [9.0] * 20 + [1.0, 2.0] * 10)
    assert uneven.eta_seconds == 2.0 * 60
    assert uneven.eta_range() == (pytest.approx(0.9 * 60), pytest.approx(1.1 * 120))


def test_a_new_state_forgets_the_pace_of_the_attempt_before() -> None:
    progress = after([0.0, 1.0], [5.0, 5.0])
    progress.take(Event(3, 2, 2.0, "state", StateChanged(JobState.RUNNING)))
    assert progress.eta_range() is None

"""The learning rate counts optimizer steps and ends where it says."""

from __future__ import annotations

import pytest

from safetrain_shared.settings import TrainingSettings
from safetraind.worker.training.schedule import learning_rate


def rates(total: int, **values: object) -> list[float]:
    settings = TrainingSettings(learning_rate=1.0, **values)  # type: ignore[arg-type]
    return [learning_rate(settings, step, total) for step in range(total)]


def test_warm_up_rises_to_the_peak_and_is_at_most_a_tenth() -> None:
    assert rates(100, warmup_steps=5, schedule="constant")[:7] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]
    )
    assert TrainingSettings(warmup_steps=50).warmup_in(100) == 10
    assert TrainingSettings(warmup_steps=50).warmup_in(9) == 0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_it_falls_from_the_peak_to_nearly_nothing(schedule: str) -> None:
    found = rates(100, warmup_steps=10, schedule=schedule)
    falling = found[10:]
    assert max(found) == falling[0] == 1.0
    assert falling == sorted(falling, reverse=True)
    assert 0 < falling[-1] < 0.02
    assert falling[45] == pytest.approx(0.5, abs=0.01)


def test_constant_stays() -> None:
    assert set(rates(30, warmup_steps=0, schedule="constant")) == {1.0}


def test_a_run_of_one_step_learns_at_the_peak() -> None:
    assert rates(1, warmup_steps=50) == [1.0]

"""What a run logs of its steps: how often, and which mean its last entry is."""

from __future__ import annotations

import pytest

from safetraind.worker.training.position import RunPosition
from safetraind.worker.training.train import logged_every


def logged(position: RunPosition, *losses: float) -> float:
    """Log a window of steps that learned ten predictions each."""
    for loss in losses:
        position.loss_sum += 10 * loss
        position.learned += 10
        position.unlogged += 1
    return position.take_loss()


def test_the_last_step_alone_is_no_cliff_of_the_curve() -> None:
    position = RunPosition()
    assert logged(position, *[2.0] * 10) == pytest.approx(2.0)
    assert logged(position, 0.9) == pytest.approx((20 + 0.9) / 11)


def test_half_a_window_stands_for_itself() -> None:
    position = RunPosition()
    logged(position, *[2.0] * 10)
    assert logged(position, *[1.0] * 5) == pytest.approx(1.0)


@pytest.mark.parametrize(("total", "every"), [(9, 1), (40, 2), (200, 10), (5000, 10)])
def test_a_short_run_is_logged_at_every_step(total: int, every: int) -> None:
    assert logged_every(10, total) == every

"""What a run logs of its steps, and when its evaluations end it early."""

from __future__ import annotations

import pytest

from safetrain_shared.settings import TrainingSettings
from safetraind.worker.training.early_stop import early_stop
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


@pytest.mark.parametrize(
    ("losses", "code", "after"),
    [
        ((2.0, 1.2, 0.9, 0.7, 0.5, 0.35, 0.25), "", 6),
        ((4.4, 0.115, 0.15, 0.13, 0.11, 0.005), "train.nothing_left", 5),  # after a plateau
        ((1.96, 0.3, 0.17, 0.02, 0.0004, 0.0), "train.nothing_left", 4),  # facts
        ((8.7, 0.0, 0.0), "train.nothing_left", 1),  # labels
        ((2.0, 1.0, 1.1, 1.05, 0.9), "", 4),
        ((2.0, 2.5, 2.4, 2.3, 2.2), "", 4),  # not below the base yet, and falling
        ((2.0, 2.5, 2.6, 2.7, 2.8), "train.early_stop", 4),
    ],
)
def test_a_run_ends_early_when_nothing_is_left_or_evaluations_bring_nothing(
    losses: tuple[float, ...], code: str, after: int
) -> None:
    position = RunPosition(base_loss=losses[0])
    settings = TrainingSettings(early_stopping=3)
    ended = []
    for loss in losses[1:]:
        position.judge(loss, "")
        assert early_stop(TrainingSettings(), position) is None
        why = early_stop(settings, position)
        ended.append(why.code if why else "")
    ended = ended[: next((n for n, code in enumerate(ended, 1) if code), None)]
    assert (ended[-1], len(ended)) == (code, after)

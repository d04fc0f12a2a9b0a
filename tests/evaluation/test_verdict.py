"""What is concluded from two models' scores on the same questions."""

from __future__ import annotations

import numpy as np
import pytest

from safetraind.worker.evaluation.verdict import Judgement, compare


def drawn(rng: np.random.Generator, share: float, count: int) -> list[float]:
    return [float(x) for x in rng.random(count) < share]


def test_the_same_scores_cannot_be_told_apart() -> None:
    for seed in range(100):
        scores = drawn(np.random.default_rng(seed), 0.4, 40)
        verdict = compare(scores, scores, seed=seed)
        assert verdict.judgement is Judgement.UNCLEAR
        assert (verdict.difference, verdict.p_value, verdict.needed) == (0.0, 1.0, 0)


def test_equal_models_are_seldom_called_different() -> None:
    wrong = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        one, two = drawn(rng, 0.4, 60), drawn(rng, 0.4, 60)
        wrong += compare(one, two, seed=seed).judgement is not Judgement.UNCLEAR
    assert wrong <= 5


@pytest.mark.parametrize(("after", "judgement"), [(0.7, Judgement.BETTER), (0.05, Judgement.WORSE)])
def test_a_planted_change_is_found_with_the_power_that_is_stated(
    after: float, judgement: Judgement
) -> None:
    found = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found += compare(drawn(rng, 0.3, 60), drawn(rng, after, 60)).judgement is judgement
    assert found >= 80


def test_the_test_is_exact_for_right_and_wrong() -> None:
    # Eight questions won, one lost: 2 · (1 + 9) / 2⁹.
    first, second = [0.0] * 8 + [1.0] + [1.0] * 5, [1.0] * 8 + [0.0] + [1.0] * 5
    assert compare(first, second).p_value == pytest.approx(20 / 512)


def test_the_interval_covers_the_difference() -> None:
    verdict = compare([0.2, 0.4, 0.9, 0.1], [0.5, 0.6, 0.8, 0.9])
    assert verdict.low <= verdict.difference <= verdict.high
    assert verdict.difference == pytest.approx(0.3)


@pytest.mark.parametrize(("won", "lost"), [(7, 1), (1, 7), (5, 0), (7, 0), (3, 2)])
def test_interval_and_verdict_say_the_same(won: int, lost: int) -> None:
    first = [0.0] * won + [1.0] * lost + [0.0] * (45 - won - lost)
    second = [1.0] * won + [0.0] * lost + [0.0] * (45 - won - lost)
    verdict = compare(first, second)
    outside = verdict.low > 0 or verdict.high < 0
    assert outside == (verdict.judgement is not Judgement.UNCLEAR)
    assert verdict.low <= verdict.difference <= verdict.high


def test_with_few_questions_it_says_how_many_it_would_take() -> None:
    verdict = compare([0.0, 0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0])
    assert verdict.judgement is Judgement.UNCLEAR and 20 <= verdict.needed <= 80


def test_a_difference_within_the_noise_of_the_device_is_not_told() -> None:
    first, second = [0.0] * 20 + [1.0] * 20, [1.0] * 10 + [0.0] * 10 + [1.0] * 20
    assert compare(first, second).judgement is Judgement.BETTER
    noisy = compare(first, second, again=[1.0] * 12 + [0.0] * 8 + [1.0] * 20)
    assert noisy.judgement is Judgement.UNCLEAR and noisy.noise == pytest.approx(0.3)


def test_scores_must_be_paired() -> None:
    for first, second, again in (([], [], []), ([1.0], [], []), ([1.0], [1.0], [1.0, 0.0])):
        with pytest.raises(ValueError, match="paired"):
            compare(first, second, again)

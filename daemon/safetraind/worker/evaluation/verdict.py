"""The verdict on two models that answered the same questions: better, worse, or unclear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from safetrain_shared.evaluations import Verdict

SIGNIFICANCE = 0.05
_POWER = 0.8
_RESAMPLES = 10_000
# Standard normal quantiles at 1 - SIGNIFICANCE / 2 and at _POWER.
_Z_SIGNIFICANCE, _Z_POWER = 1.959964, 0.841621


class Judgement(StrEnum):
    """The comparison of the second model with the first."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "unclear"


def compare(
    first: Sequence[float], second: Sequence[float], again: Sequence[float] = (), *, seed: int = 0
) -> Verdict:
    """Compare the scores (0 to 1) of two models, question by question.

    The interval of the difference is the paired percentile bootstrap's (Efron and Tibshirani 1993,
    chapter 13), and reaches to zero where the test does not exclude it. The p-value is that of the
    two-sided paired sign-flip permutation test; for scores of 0 and 1 this is the exact McNemar
    test.

    `again`: scores of a second run of the first model, on a device whose results differ from run to
    run; a difference no larger than the one between its two runs is never called better or worse.
    Raises ValueError where the lengths differ or there is no question.
    """
    if not first or len(first) != len(second) or len(again) not in (0, len(first)):
        raise ValueError("scores must be paired")
    one, two = np.asarray(first, float), np.asarray(second, float)
    differences = two - one
    mean = float(differences.mean())
    noise = abs(float(np.mean(again) - one.mean())) if len(again) else 0.0
    rng = np.random.default_rng(seed)
    low, high = _interval(differences, rng)
    p_value = _p_value(differences, rng)
    certain = p_value < SIGNIFICANCE and abs(mean) > noise
    judgement = Judgement.UNCLEAR
    if not certain:  # with few questions the bootstrap alone is too narrow
        low, high = min(low, 0.0), max(high, 0.0)
    else:
        judgement = Judgement.BETTER if mean > 0 else Judgement.WORSE
    return Verdict(
        judgement=judgement,
        questions=len(differences),
        base=float(one.mean()),
        adapter=float(two.mean()),
        difference=mean,
        low=low,
        high=high,
        p_value=p_value,
        needed=_needed(differences),
        noise=noise,
    )


def _interval(differences: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    picks = rng.integers(0, len(differences), (_RESAMPLES, len(differences)), dtype=np.int32)
    means = differences[picks].mean(axis=1)
    low, high = np.quantile(means, (SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2))
    return float(low), float(high)


def _p_value(differences: np.ndarray, rng: np.random.Generator) -> float:
    """Return the two-sided p-value: the share of random signs whose sum is as far from zero as the
    one observed.
    """
    unequal = differences[differences != 0]
    if not len(unequal):
        return 1.0
    if np.all(np.abs(unequal) == abs(unequal[0])):
        return _binomial(int((unequal > 0).sum()), len(unequal))
    signs = rng.choice((-1.0, 1.0), (_RESAMPLES, len(unequal)))
    sums = np.abs(signs @ np.abs(unequal))
    reached = int((sums >= abs(unequal.sum()) - 1e-12).sum())
    return (reached + 1) / (_RESAMPLES + 1)  # Phipson and Smyth 2010: never exactly zero


def _binomial(wins: int, trials: int) -> float:
    """Return the p-value of the two-sided exact binomial test of a fair coin."""
    fewer = min(wins, trials - wins)
    tail = sum(math.comb(trials, k) for k in range(fewer + 1)) / 2**trials
    return min(1.0, 2 * tail)


def _needed(differences: np.ndarray) -> int:
    """Return the sample size of a paired comparison.

    It is (z_a + z_b)² σ² / δ² (Cohen 1988, chapter 2), with the continuity correction of an exact
    test (Fleiss, Levin and Paik 2003, section 4.2).
    """
    change = abs(float(differences.mean()))
    if change == 0:
        return 0
    spread = max(float(differences.std(ddof=1)) if len(differences) > 1 else 1.0, 1e-9)
    plain = ((_Z_SIGNIFICANCE + _Z_POWER) * spread / change) ** 2
    return math.ceil(plain / 4 * (1 + math.sqrt(1 + 4 / (plain * change))) ** 2)

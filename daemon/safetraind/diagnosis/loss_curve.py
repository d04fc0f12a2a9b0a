"""The loss does not fall, or is unstable: read off the curves of training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, pstdev

from safetrain_shared.findings import Finding
from safetraind.diagnosis.diagnosis_facts import Facts, Story
from safetraind.preflight.check import failed_softly, info, passed, warning

NOT_FINITE = (
    "train.non_finite_sample",
    "train.non_finite_weights",
    "train.non_finite_validation",
    "train.non_finite_evaluation",
)
_FEW = 8
"""Logged losses below which nothing can be said."""

_DIVERGED = 1.5
"""The end lies this many times above the lowest tenth of the curve."""

_MATTERS = 0.1
"""A rise that is a smaller share of the beginning is a matter of single batches."""

_FLAT = 0.97
"""The end lies above this share of the beginning."""

_UNSTEADY = 0.35
"""The spread of changes between logged losses, as a share of the loss, in the second half."""

_OVERFITTED = 1.1
"""The newest validation loss lies this many times above the lowest."""


def judge(facts: Facts) -> list[Finding]:
    """What the curves show: a finding for training, and one for validation if it was evaluated."""
    story = facts.story
    if story is None:
        return [info("diagnosis.not_judged")]
    broken = [t for t in story.troubles if t.code in NOT_FINITE]
    if broken:
        return [failed_softly(broken[-1].code, **broken[-1].args)]
    if len(story.losses) < _FEW:
        return [info("diagnosis.loss_too_early", id=story.id)]
    return [_training(story), *_validation(story)]


def _training(story: Story) -> Finding:
    losses = story.losses
    part = max(2, len(losses) // 10)
    first, last, lowest = fmean(losses[:part]), fmean(losses[-part:]), _lowest(losses, part)
    args = {"first": round(first, 3), "last": round(last, 3), "rate": max(story.rates, default=0.0)}
    if last > _DIVERGED * lowest and last - lowest > _MATTERS * first:
        return warning("diagnosis.loss_diverged", lowest=round(lowest, 3), **args)
    if last > _FLAT * first:
        return warning("diagnosis.loss_flat", **args)
    if _unsteadiness(losses[len(losses) // 2 :]) > _UNSTEADY and last > _MATTERS * first:
        return warning("diagnosis.loss_unsteady", **args)
    return passed("diagnosis.loss_falls", **args)


def _lowest(losses: Sequence[float], part: int) -> float:
    """The lowest mean of `part` losses in a row."""
    return min(fmean(losses[i : i + part]) for i in range(len(losses) - part + 1))


def _unsteadiness(losses: Sequence[float]) -> float:
    """How far the loss jumps from one logged step to the next, as a share of itself."""
    jumps = [b - a for a, b in pairwise(losses)]
    return pstdev(jumps) / max(fmean(losses), 1e-9) if len(jumps) > 1 else 0.0


def _validation(story: Story) -> list[Finding]:
    found = story.evaluations
    if len(found) < 2:
        return []
    best = min(found)
    if found[-1] > _OVERFITTED * best:
        return [warning("diagnosis.loss_overfits", best=round(best, 3), last=round(found[-1], 3))]
    return [passed("diagnosis.loss_validated", best=round(best, 3))]

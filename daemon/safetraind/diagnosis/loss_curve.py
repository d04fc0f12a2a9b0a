"""The loss does not fall, or is unstable: judged from the training and validation curves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, pstdev

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState
from safetrain_shared.learning_curve import lower_rate, trouble
from safetrain_shared.settings import TrainingSettings
from safetraind.diagnosis.diagnosis_facts import Facts, JobHistory
from safetraind.preflight.check import failed_softly, info, passed, warning

NOT_FINITE = (
    "train.non_finite_sample",
    "train.non_finite_weights",
    "train.non_finite_validation",
    "train.non_finite_evaluation",
)
_FEW = 8
"""Fewer logged losses than this are not judged."""

_DIVERGED = 1.5
"""Diverged: the last tenth of the curve is this many times the lowest tenth."""

_MATTERS = 0.1
"""A rise smaller than this share of the first losses is noise of single batches."""

_FLAT = 0.97
"""Flat: the last tenth is above this share of the first tenth."""

_UNSTEADY = 0.35
"""Unsteady: standard deviation of changes between logged losses, relative to the mean loss."""

_USUAL_RATE = TrainingSettings().learning_rate


def judge(facts: Facts) -> list[Finding]:
    """Return a finding for the training loss, and one for the validation loss if there is one."""
    job = facts.history
    if job is None:
        return [info("diagnosis.not_judged")]
    broken = [t for t in job.troubles if t.code in NOT_FINITE]
    if broken:
        return [failed_softly(broken[-1].code, **broken[-1].args)]
    if len(job.losses) < _FEW:
        return [info("diagnosis.loss_too_early", id=job.id)]
    return [_training(job), *_validation(job)]


def _training(job: JobHistory) -> Finding:
    losses = job.losses
    part = max(2, len(losses) // 10)
    first, last, lowest = fmean(losses[:part]), fmean(losses[-part:]), _lowest(losses, part)
    rate = max(job.rates, default=0.0)
    args = {"first": round(first, 3), "last": round(last, 3), "rate": rate}
    too_high = {**args, "lower": lower_rate(rate)}
    if last > _DIVERGED * lowest and last - lowest > _MATTERS * first:
        return warning("diagnosis.loss_diverged", lowest=round(lowest, 3), **too_high)
    if last > _FLAT * first:
        return warning("diagnosis.loss_flat", higher=2 * rate or _USUAL_RATE, **args)
    if _unsteadiness(losses[len(losses) // 2 :]) > _UNSTEADY and last > _MATTERS * first:
        return warning("diagnosis.loss_unsteady", **too_high)
    return passed("diagnosis.loss_falls", **args)


def _lowest(losses: Sequence[float], part: int) -> float:
    """Return the lowest mean of `part` consecutive losses."""
    return min(fmean(losses[i : i + part]) for i in range(len(losses) - part + 1))


def _unsteadiness(losses: Sequence[float]) -> float:
    """Return the standard deviation of the changes between steps, relative to the mean loss."""
    jumps = [b - a for a, b in pairwise(losses)]
    return pstdev(jumps) / max(fmean(losses), 1e-9) if len(jumps) > 1 else 0.0


def _validation(job: JobHistory) -> list[Finding]:
    if len(job.evaluations) < 2:
        return []
    settings = job.plan.settings if job.plan else job.spec.complete_settings
    ended = job.state is JobState.SUCCEEDED
    if found := trouble(job.evaluations, job.losses[-1], settings, ended=ended):
        return [found]
    best = min(evaluated.loss for evaluated in job.evaluations)
    return [passed("diagnosis.loss_validated", best=round(best, 3))]

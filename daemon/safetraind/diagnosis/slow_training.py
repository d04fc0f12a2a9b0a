"""Training is slow: slower than expected or than before, or with memory or speed-ups unused."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from safetrain_shared.findings import Finding
from safetraind.diagnosis.diagnosis_facts import Facts, JobHistory, checked
from safetraind.preflight.check import info, passed, warning

_SLOW = 0.6
"""Below this share of the expected or of the initial throughput, a training is slow."""

_SPARE = 0.5
"""Below this share of the budget at the peak a larger micro-batch fits."""

_FEW = 8
"""Fewer logged steps than this are not judged: the first ones load and compile."""


def judge(facts: Facts) -> list[Finding]:
    """Return a finding on the throughput, then what slows any training on this machine."""
    own = _throughput(facts.history) if facts.history else [info("diagnosis.not_judged")]
    return own + _unused(facts) + checked(("power", "compiler", "blas"), facts)


def _throughput(job: JobHistory) -> list[Finding]:
    if len(job.speeds) < _FEW:
        return [info("diagnosis.speed_unknown", id=job.id)]
    now, before = _newest(job.speeds), median(job.speeds[2 : 2 + _FEW])
    expected = job.plan.tokens_per_second if job.plan else 0.0
    if now < _SLOW * before:
        return [warning("diagnosis.speed_dropped", now=now, before=before)]
    if expected and now < _SLOW * expected:
        return [warning("diagnosis.speed_below_plan", now=now, expected=expected)]
    return [passed("diagnosis.speed_steady", now=now)]


def _newest(speeds: Sequence[float]) -> float:
    return median(speeds[-_FEW:])


def _unused(facts: Facts) -> list[Finding]:
    job, device = facts.history, facts.machine.device
    plan = job.plan if job else None
    if job is None or plan is None:
        return []
    found = []
    on_cpu = device is not None and device.kind == "cpu"
    if on_cpu and facts.machine.model.bits and not plan.settings.dequantize:
        found.append(warning("diagnosis.speed_quantized_on_cpu"))
    if 0 < job.peak < _SPARE * plan.memory_budget:
        args = {"peak": job.peak, "budget": plan.memory_budget}
        found.append(info("diagnosis.speed_room", batch_size=plan.settings.batch_size * 2, **args))
    return found

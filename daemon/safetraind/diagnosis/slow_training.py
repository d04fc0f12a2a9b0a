"""Training is slow: slower than expected, slower than before, or with means left unused."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from safetrain_shared.findings import Finding
from safetraind.diagnosis.diagnosis_facts import Facts, Story, checked
from safetraind.preflight.check import info, passed, warning

_SLOW = 0.6
"""Below this share of what was expected, or of its own beginning, something gets in the way."""

_SPARE = 0.5
"""Below this share of the budget there is room for a larger micro-batch."""

_FEW = 8
"""Logged steps below which a pace says little: the first ones load and compile."""


def judge(facts: Facts) -> list[Finding]:
    """The pace as measured, then what makes any training slower on this machine."""
    own = _pace(facts.story) if facts.story else [info("diagnosis.not_judged")]
    return own + _unused(facts) + checked(("power", "compiler", "blas"), facts)


def _pace(story: Story) -> list[Finding]:
    if len(story.paces) < _FEW:
        return [info("diagnosis.speed_unknown", id=story.id)]
    now, before = _newest(story.paces), median(story.paces[2 : 2 + _FEW])
    expected = story.plan.tokens_per_second if story.plan else 0.0
    if now < _SLOW * before:
        return [warning("diagnosis.speed_dropped", now=now, before=before)]
    if expected and now < _SLOW * expected:
        return [warning("diagnosis.speed_below_plan", now=now, expected=expected)]
    return [passed("diagnosis.speed_steady", now=now)]


def _newest(paces: Sequence[float]) -> float:
    return median(paces[-_FEW:])


def _unused(facts: Facts) -> list[Finding]:
    story, device = facts.story, facts.machine.device
    plan = story.plan if story else None
    if story is None or plan is None:
        return []
    found = []
    on_cpu = device is not None and device.kind == "cpu"
    if on_cpu and facts.machine.model.bits and not plan.settings.dequantize:
        found.append(warning("diagnosis.speed_quantized_on_cpu"))
    if 0 < story.peak < _SPARE * plan.memory_budget:
        args = {"peak": story.peak, "budget": plan.memory_budget}
        found.append(info("diagnosis.speed_room", batch_size=plan.settings.batch_size * 2, **args))
    return found

"""Out of memory: has it happened, could it happen, and what was done about it already."""

from __future__ import annotations

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState
from safetraind.diagnosis.diagnosis_facts import Facts, Story, checked
from safetraind.preflight.check import failed_softly, info, passed, warning

DEATHS = ("job.out_of_memory",)
REFUSALS = ("plan.refused_", "hardware.memory_short")
_OVER = 1.1
"""A measured peak this much above the plan's is worth a report: predictions are within 10 %."""


def judge(facts: Facts) -> list[Finding]:
    """The job's own memory first, then what the machine has."""
    own = _own(facts.story) if facts.story else [info("diagnosis.no_job")]
    return own + checked(("memory", "pressure"), facts)


def _own(story: Story) -> list[Finding]:
    deaths = [t for t in story.troubles if t.code in DEATHS]
    if story.cause is not None and story.cause.code.startswith(REFUSALS):
        return [story.cause]
    if deaths:
        return [_died(story, len(deaths))]
    expected = story.plan.measured_peak or story.plan.predicted_peak if story.plan else 0
    if expected and story.peak > _OVER * expected:
        args = {"peak": story.peak, "expected": expected}
        return [warning("diagnosis.memory_above_plan", **args)]
    if story.peak and story.plan:
        budget = story.plan.memory_budget
        return [passed("diagnosis.memory_fits", peak=story.peak, budget=budget)]
    return [info("diagnosis.memory_unknown", id=story.id)]


def _died(story: Story, count: int) -> Finding:
    settings = story.plan.settings if story.plan else None
    args = {
        "id": story.id,
        "count": count,
        "batch_size": settings.batch_size if settings else 0,
        "gradient_accumulation": settings.gradient_accumulation if settings else 0,
        "max_seq_length": settings.max_seq_length if settings else 0,
    }
    if story.state is JobState.FAILED:
        return failed_softly("diagnosis.memory_failed", **args)
    return warning("diagnosis.memory_ran_out", **args)

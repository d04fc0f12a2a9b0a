"""Out of memory: whether it happened, whether it could, and what the fallback changed."""

from __future__ import annotations

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState
from safetraind.diagnosis.diagnosis_facts import Facts, JobHistory, checked
from safetraind.preflight.check import failed_softly, info, passed, warning

OUT_OF_MEMORY = ("job.out_of_memory",)
REFUSALS = ("plan.refused_", "hardware.memory_short")
_OVER = 1.1
"""A measured peak this many times the plan's is reported: predictions are within 10 %."""


def judge(facts: Facts) -> list[Finding]:
    """Return a finding on the job's memory, then those on the machine's."""
    own = _of_job(facts.history) if facts.history else [info("diagnosis.no_job")]
    return own + checked(("memory", "pressure"), facts)


def _of_job(job: JobHistory) -> list[Finding]:
    kills = [t for t in job.troubles if t.code in OUT_OF_MEMORY]
    if job.cause is not None and job.cause.code.startswith(REFUSALS):
        return [job.cause]
    if kills:
        return [_ran_out(job, len(kills))]
    expected = job.plan.measured_peak or job.plan.predicted_peak if job.plan else 0
    if expected and job.peak > _OVER * expected:
        args = {"peak": job.peak, "expected": expected}
        return [warning("diagnosis.memory_above_plan", **args)]
    if job.peak and job.plan:
        budget = job.plan.memory_budget
        return [passed("diagnosis.memory_fits", peak=job.peak, budget=budget)]
    return [info("diagnosis.memory_unknown", id=job.id)]


def _ran_out(job: JobHistory, count: int) -> Finding:
    settings = job.plan.settings if job.plan else None
    args = {
        "id": job.id,
        "count": count,
        "batch_size": settings.batch_size if settings else 0,
        "gradient_accumulation": settings.gradient_accumulation if settings else 0,
        "max_seq_length": settings.max_seq_length if settings else 0,
    }
    if job.state is JobState.FAILED:
        return failed_softly("diagnosis.memory_failed", **args)
    return warning("diagnosis.memory_ran_out", **args)

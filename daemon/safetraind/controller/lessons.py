"""Measurements for the planner from a training that ended: a death of memory, or peak and speed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from safetrain_shared.history import Progress
from safetrain_shared.paths import Home
from safetraind.planner import measurement_cache
from safetraind.scheduler.exit_cause import died_of_memory
from safetraind.scheduler.state import Job, WorkerExit


def lesson(home: Home, job: Job, end: WorkerExit, progress: Progress) -> Callable[[], None] | None:
    """Return the function that keeps the measurement; None where there is none."""
    plan = job.plan
    if plan is None:
        return None
    if died_of_memory(end):
        return partial(measurement_cache.note_death, home, plan)
    if end.outcome == "succeeded" and not plan.measured_peak:
        took = progress.peak_memory, progress.tokens_per_second
        return partial(measurement_cache.note_success, home, plan, *took)
    return None

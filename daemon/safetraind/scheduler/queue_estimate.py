"""Which jobs run before a waiting one, as things stand; pure. Its start is estimated from them.

Follows what `machine` will do: interrupted jobs first, then the queue, passing over those that wait
for another job's end or are held.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from safetrain_shared.jobs import FINAL
from safetraind.scheduler.state import Job, SchedulerState


@dataclass(frozen=True, slots=True)
class Ahead:
    """Jobs that run before another: `sure` will, `maybe` if what they wait for comes in time."""

    sure: tuple[Job, ...]
    maybe: tuple[Job, ...] = ()


def ahead_of(scheduler: SchedulerState, job: Job) -> Ahead | None:
    """The jobs ahead of the waiting `job`.

    None where nobody can say when it starts: it is held, or waits for a job that is paused or held.
    """
    active = scheduler.active
    leaving = active is not None and bool(active.intent)
    sure = [active] if active is not None and not leaving else []
    ended = {other.id for other in scheduler.jobs.values() if other.state in FINAL}
    if active is not None and active.intent != "pause":
        ended.add(active.id)
    waiting = [other for other in scheduler.waiting if not other.held]
    while (first := _next(scheduler, waiting, ended)) is not None:
        if first.id == job.id:
            return Ahead(tuple(sure), tuple(_held_before(scheduler.waiting, job)))
        sure.append(first)
        ended.add(first.id)
        waiting.remove(first)
    return None


def _next(scheduler: SchedulerState, waiting: Sequence[Job], ended: set[int]) -> Job | None:
    for job in waiting:
        if not job.after or job.after in ended or job.after not in scheduler.jobs:
            return job
    return None


def _held_before(waiting: Iterable[Job], job: Job) -> list[Job]:
    held = []
    for other in waiting:
        if other.id == job.id:
            break
        if other.held:
            held.append(other)
    return held

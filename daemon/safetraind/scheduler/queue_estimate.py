"""The order in which the waiting jobs will run, as things stand; pure. Starts are estimated by it.

Follows what `transitions.next_job` will do: interrupted jobs first, then the queue, passing over
those that wait for another job's end or are held. One that rests between two segments lets no other
begin.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from safetrain_shared.jobs import FINAL
from safetraind.scheduler.state import Job, SchedulerState


@dataclass(frozen=True, slots=True)
class RunOrder:
    """The queue at one moment.

    `jobs`: those that will run, in order, first the one at work, unless it is about to leave, or
    the one that rests. Another one that is held, or waits for one that is paused or held, is not
    among them: its start cannot be predicted. `positions`: the place in the queue of each job that
    waits, from 1. `held`: the held ones with their positions, the first in the queue first; they
    run earlier than those behind them if what they wait for comes in time.
    """

    jobs: tuple[Job, ...]
    positions: dict[int, int]
    held: tuple[tuple[int, Job], ...]


def run_order(scheduler: SchedulerState) -> RunOrder:
    """Simulate the queue to its end, in O(n log n) for n jobs."""
    waiting = scheduler.waiting
    active = scheduler.active or next((job for job in waiting if job.resting), None)
    ended = {job.id for job in scheduler.jobs.values() if job.state in FINAL}
    if active is not None and active.intent != "pause":
        ended.add(active.id)
    first = [active] if active is not None and not active.intent else []
    return RunOrder(
        jobs=(*first, *_simulated(scheduler, waiting, ended)),
        positions={job.id: place for place, job in enumerate(waiting, start=1)},
        held=tuple(
            (place, job)
            for place, job in enumerate(waiting, start=1)
            if job.held and job is not active
        ),
    )


def _simulated(scheduler: SchedulerState, waiting: Sequence[Job], ended: set[int]) -> list[Job]:
    """Return the order in which the jobs run: always the first in the queue that waits for no
    other, until none is left.
    """
    ready: list[int] = []
    behind: defaultdict[int, list[int]] = defaultdict(list)  # by the job that is waited for
    for index, job in enumerate(waiting):
        if job.held:
            continue
        if not job.after or job.after in ended or job.after not in scheduler.jobs:
            ready.append(index)  # ascending: a heap already
        else:
            behind[job.after].append(index)
    order = []
    while ready:
        job = waiting[heapq.heappop(ready)]
        order.append(job)
        for index in behind.pop(job.id, ()):
            heapq.heappush(ready, index)
    return order

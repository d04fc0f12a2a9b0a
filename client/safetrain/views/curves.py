"""A job's metrics as curves over the optimizer step, with smoothing and thinning."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter, itemgetter

from safetrain_shared.events import CheckpointSaved, Evaluated, Event, StepDone
from safetrain_shared.history import Fallback, history
from safetrain_shared.jobs import Plan

Points = Sequence[tuple[float, float]]  # optimizer step, value
_STEP, _VALUE = itemgetter(0), itemgetter(1)


@dataclass(slots=True)
class Curves:
    """The measurements of a run, each list ordered by step, no step twice."""

    steps: list[StepDone] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    checkpoints: list[CheckpointSaved] = field(default_factory=list)
    fallbacks: list[Fallback] = field(default_factory=list)
    plan: Plan | None = None

    def line(self, name: str) -> Points:
        """Return (step, value) of one field of the logged steps; finite values only."""
        value, finite = attrgetter(name), math.isfinite
        return [(done.step, found) for done in self.steps if finite(found := value(done))]

    @property
    def validation(self) -> Points:
        """(step, validation loss) of every evaluation; finite values only."""
        return [(e.step, e.loss) for e in self.evaluations if math.isfinite(e.loss)]

    @property
    def best(self) -> Evaluated | None:
        """The evaluation with the lowest loss, the latest of equals, as in `adapters/`."""
        finite = [e for e in self.evaluations if e.step and math.isfinite(e.loss)]
        return min(finite, key=lambda e: (e.loss, -e.step), default=None)

    @property
    def base(self) -> Evaluated | None:
        """The validation loss before the first step; None where it was not measured."""
        return next((e for e in self.evaluations[:1] if e.step == 0), None)

    @property
    def last_step(self) -> int:
        """The last step with an event; 0 before the first."""
        lists = (self.steps, self.evaluations, self.checkpoints)
        return max((known[-1].step for known in lists if known), default=0)

    @property
    def mean_speed(self) -> float:
        """Tokens per second over all logged steps: tokens divided by their time."""
        tokens, seconds, before = 0, 0.0, 0
        for done in self.steps:
            if done.tokens > before and done.tokens_per_second > 0:
                tokens += done.tokens - before
                seconds += (done.tokens - before) / done.tokens_per_second
            before = done.tokens
        return tokens / seconds if seconds else 0.0

    @property
    def epochs(self) -> list[tuple[int, int]]:
        """The start of each epoch but the first: (last step before it, its number from 0)."""
        pairs = zip(self.steps, self.steps[1:], strict=False)
        return [
            (later.step - later.step_in_epoch, later.epoch)
            for earlier, later in pairs
            if later.epoch > earlier.epoch
        ]


def curves_of(events: Iterable[Event]) -> Curves:
    """Return the curves of a job. `events`: in the order of the event file."""
    known = history(events)
    return Curves(known.steps, known.evaluations, known.checkpoints, known.fallbacks, known.plan)


def thinned(points: Points, columns: int) -> Points:
    """Return at most four points per pixel column: its first, lowest, highest and last.

    A line through them covers the same pixels as one through all points, so no peak is lost.
    """
    if len(points) <= 4 * columns:
        return points
    left, right = points[0][0], points[-1][0]
    kept: list[tuple[float, float]] = []
    start = 0
    for column in range(1, columns):
        edge = left + column * (right - left) / columns
        end = bisect_left(points, edge, lo=start, key=_STEP)
        kept += _extremes(points[start:end])
        start = end
    return kept + _extremes(points[start:])


def _extremes(cell: Points) -> list[tuple[float, float]]:
    if not cell:
        return []
    return sorted({cell[0], cell[-1], min(cell, key=_VALUE), max(cell, key=_VALUE)})


def smoothed(points: Points, windows: int = 40) -> Points:
    """Return a centred running mean over 1/`windows` of the points; [] where there are too few."""
    reach = len(points) // (2 * windows)
    if reach < 1:
        return []
    sums = list(accumulate(map(_VALUE, points), initial=0.0))

    def mean(i: int) -> tuple[float, float]:
        near = min(reach, i, len(points) - 1 - i)  # symmetric, so that the ends are not bent
        return points[i][0], (sums[i + near + 1] - sums[i - near]) / (2 * near + 1)

    width, end = 2 * reach + 1, len(points) - reach
    whole = zip(map(_STEP, points[reach:end]), sums, sums[width:], strict=False)
    middle = [(step, (after - before) / width) for step, before, after in whole]
    return [*map(mean, range(reach)), *middle, *map(mean, range(end, len(points)))]

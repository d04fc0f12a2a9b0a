"""Tells the time of an epoch by the steps that were run.

    seconds = sum over micro-batches of t(work), work = (1 - h)·tokens + h·predictions

`h` is the head's share of a token's work: only predictions that count go through it. `t` is that of
steps of about as much work, else on a straight line between those beside it, and below the smallest
and beyond the largest in proportion to t0 + work. `t0` is the time of a micro-batch beside its
work, in the same unit.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from safetrain_shared.settings import TrainingSettings
from safetraind.planner.batch_shapes import mean_step, micro_batches
from safetraind.planner.memory_estimate import attends_alike, computes_loss_alike
from safetraind.planner.option import Question
from safetraind.planner.peak_fit import FEWEST
from safetraind.planner.ways import of_setup, same_adapter, same_way, way
from safetraind.worker_messages.probe_messages import Measure, Step

# Time of a micro-batch beside its tokens, in tokens, before steps tell it: launching, loading,
# g++'s compiled parts.
_FIXED_TOKENS = 24
# Steps tell it of which one has so many times the tokens of another. Times vary by a few percent,
# and by steps of 288 and 576 tokens it was 0 where it was not.
_APART = 3
# A step of up to so many times the tokens, or as many times fewer, tells a micro-batch's time.
_NEAR = 1.5


class _Timed(NamedTuple):
    """A micro-batch that was run, and its seconds."""

    settings: TrainingSettings
    step: Step
    seconds: float


class EpochTime:
    """The time of an epoch of one question, in different settings, by the same measures."""

    def __init__(
        self,
        question: Question,
        measures: Sequence[Measure],
        valid: Sequence[Measure],
        bucket: int,
    ) -> None:
        """`valid`: those of the measures that hold within today's budget."""
        self._question = question
        self._bucket = bucket
        # A step takes about the same time under another memory limit, if not the same memory.
        self._run = [m for m in measures if not m.died and m.tokens_per_second]
        self._timed = [
            _Timed(m.settings, step, seconds)
            for m in self._run
            for step, seconds in [(m.step, m.seconds), *m.sample]
        ]
        # Near its limit MLX waits: up to 6 % longer, which decides between samples.
        self._sampled = [m for m in valid if m.sample]

    def padded_cost(self, settings: TrainingSettings) -> float:
        """Return the time of an epoch in units of that of one token that is predicted."""
        fixed = self._fixed_tokens
        return sum(n * (self._work(step) + fixed) for step, n in self._micro_batches(settings))

    def seconds(self, settings: TrainingSettings, step: Step) -> float:
        """Return the seconds of an epoch whose heaviest micro-batch is `step`; 0 where none of this
        way of computing was run.
        """
        times = self._sample(settings, step) or self._steps(settings, step)
        if not times:
            return 0.0
        heaviest, fixed = self._work(step), self._fixed_tokens
        epoch = self._micro_batches(settings)
        computing = sum(n * _time(times, self._work(each), heaviest, fixed) for each, n in epoch)
        updates = sum(n for _, n in epoch) / settings.gradient_accumulation
        return computing + updates * self._update_seconds(settings)

    def is_sampled(self, settings: TrainingSettings, step: Step) -> bool:
        """Return whether micro-batches of this epoch were run in exactly this way."""
        return bool(self._sample(settings, step))

    def _sample(self, settings: TrainingSettings, step: Step) -> dict[float, float]:
        """Return the seconds of an epoch's micro-batches by their work, as they were run in exactly
        this way; empty where none were.
        """
        epoch = {each for each, _ in self._micro_batches(settings)}
        own = of_setup(self._sampled, settings, step)
        found = [m for m in own if epoch.issuperset(each for each, _ in m.sample)]
        return self._medians([(step, found[-1].seconds), *found[-1].sample]) if found else {}

    def _steps(self, settings: TrainingSettings, step: Step) -> dict[float, float]:
        """Return the seconds of single steps of this way by their work; empty where too few were
        run.
        """
        run = self._like(settings, step)
        own = of_setup(self._run, settings, step)
        if not own and len({(timed.step.rows, timed.step.width) for timed in run}) < FEWEST:
            return {}
        times = self._medians([(timed.step, timed.seconds) for timed in run])
        return {**times, self._work(step): own[-1].seconds} if own else times

    def _medians(self, run: Sequence[tuple[Step, float]]) -> dict[float, float]:
        """Return the seconds by their work, the median where several steps have as much."""
        told: dict[float, list[float]] = {}
        for step, seconds in run:
            told.setdefault(self._work(step), []).append(seconds)
        return {work: statistics.median(seconds) for work, seconds in told.items()}

    def mean_step(self, settings: TrainingSettings, step: Step) -> Step:
        """Return the micro-batch of mean width of an epoch whose heaviest is `step`."""
        epoch = self._micro_batches(settings)
        tokens, batches = sum(n * s.tokens for s, n in epoch), sum(n for _, n in epoch)
        return mean_step(step, tokens, batches, self._bucket)

    def is_told(self, settings: TrainingSettings, heaviest: Step, step: Step) -> bool:
        """Return whether a micro-batch that was run, or the heaviest, is about as large."""
        others = [heaviest, *(timed.step for timed in self._like(settings, heaviest))]
        return any(_apart(other.tokens, step.tokens) <= _NEAR for other in others)

    def _micro_batches(self, settings: TrainingSettings) -> list[tuple[Step, int]]:
        return micro_batches(self._question.lengths, settings, self._bucket)

    def _like(self, settings: TrainingSettings, step: Step) -> list[_Timed]:
        """Return what was run of this way and computes attention and loss as a micro-batch of the
        epoch does: narrow ones may have a whole loss where the heaviest, `step`, has chunks.
        """
        kinds = [step, *(each for each, _ in self._micro_batches(settings))]
        return [
            timed
            for timed in self._of_way(settings)
            if any(self._alike(settings, timed.step, kind) for kind in kinds)
        ]

    def _of_way(self, settings: TrainingSettings) -> list[_Timed]:
        return [timed for timed in self._timed if same_way(timed.settings, settings)]

    def _alike(self, settings: TrainingSettings, one: Step, other: Step) -> bool:
        runtime = self._question.runtime
        attends = attends_alike(runtime, settings, one.width, other.width)
        return attends and computes_loss_alike(runtime, settings, one.learned, other.learned)

    def _work(self, step: Step) -> float:
        """Return the time of a micro-batch in units of that of one token that is predicted."""
        return step.tokens - self._head_share * (step.tokens - step.learned)

    @functools.cached_property
    def _head_share(self) -> float:
        """The head's share of a token's work: that of the weights that it is multiplied with. 0
        where every token goes through the head.
        """
        if not self._question.runtime.splits_head:
            return 0.0
        shape = self._question.shape
        used = [max(1, shape.routed) if m.experts > 1 else 1 for m in shape.linears]
        layer = sum(n * m.inputs * m.outputs for n, m in zip(used, shape.linears, strict=True))
        head = shape.vocabulary * shape.hidden
        return head / (head + shape.layers * layer)

    @functools.cached_property
    def _fixed_tokens(self) -> float:
        """The time of a micro-batch beside its tokens, in tokens.

        One for all ways of computing, the median of what each way's steps say: they are few, and
        where each way had its own, narrow micro-batches seemed faster with the layers computed
        twice.
        """
        ways = {way(run.settings): run.settings for run in self._run}.values()
        told = [
            _fixed_tokens(
                [(self._work(each.step), each.seconds) for each in self._of_way(settings)]
            )
            for settings in ways
        ]
        return statistics.median([n for n in told if n is not None] or [_FIXED_TOKENS])

    def _update_seconds(self, settings: TrainingSettings) -> float:
        """Return the seconds of applying the gradient. They depend on the adapter alone."""
        run = [m.update_seconds for m in self._run if same_adapter(m.settings, settings)]
        return statistics.median(run) if run else 0.0


def _time(times: Mapping[float, float], work: float, heaviest: float, fixed: float) -> float:
    """Return the seconds of a micro-batch of so much work, by those of others.

    Exactly that one's, else the median of those about as large, as one may be a fifth off. Where
    there is none, it lies between those beside it: caches and threads make a large one faster or
    slower than a straight line through all has it. Where it lies outside, that of the `heaviest`
    tells it if it was run, so that ways of computing of which other steps were run compare.
    """
    if work in times:
        return times[work]
    near = [other for other in times if _apart(other, work) <= _NEAR]
    if not near:
        smaller = max((other for other in times if other < work), default=None)
        larger = min((other for other in times if other > work), default=None)
        if smaller is not None and larger is not None:
            share = (work - smaller) / (larger - smaller)
            return (1 - share) * times[smaller] + share * times[larger]
        nearest = min(times, key=lambda other: _apart(other, work))
        near = [heaviest if heaviest in times else nearest]
    return statistics.median(times[other] / (other + fixed) for other in near) * (work + fixed)


def _fixed_tokens(steps: Sequence[tuple[float, float]]) -> float | None:
    """Return the time of a micro-batch of no tokens, by that of one token; None where the steps,
    tokens and seconds, do not tell it.

    It is what the smallest takes too long, by the next that is large enough: the largest take more
    for each token, which would hide it.
    """
    smallest, seconds = min(steps)
    larger = [step for step in steps if step[0] >= _APART * smallest]
    if not larger:
        return None
    work, longer = min(larger)
    if longer <= seconds:
        return None
    return max(0.0, seconds * (work - smallest) / (longer - seconds) - smallest)


def _apart(one: float, other: float) -> float:
    """Return how many times as much the larger of two has."""
    return max(one, other) / min(one, other)

"""Tells the time of an epoch by the steps that were run.

    seconds = k·(t0·micro-batches + (1 - h)·tokens + h·predictions)

`h` is the head's share of a token's work: only predictions that count go through it. `k` is that of
steps with about as many tokens as the epoch's micro-batches have on average, `t0` that of narrow
steps beside wider ones.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence

from safetrain_shared.settings import TrainingSettings
from safetraind.planner.batch_shapes import head_tokens, mean_step, padded_tokens
from safetraind.planner.memory_estimate import attends_alike, computes_loss_alike
from safetraind.planner.option import Question
from safetraind.planner.peak_fit import FEWEST, slope
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


class EpochTime:
    """The time of an epoch of one question, in different settings, by the same measures."""

    def __init__(self, question: Question, measures: Sequence[Measure], bucket: int) -> None:
        self._question = question
        self._bucket = bucket
        # A step takes the same time under another memory limit, if not the same memory.
        self._run = [m for m in measures if not m.died and m.tokens_per_second]

    def padded_cost(self, settings: TrainingSettings) -> float:
        """Return the time of an epoch in units of that of one token that is predicted."""
        tokens, batches = self._padded(settings)
        learned = head_tokens(self._question.lengths, settings, self._bucket)
        return self._work(tokens, learned) + self._fixed_tokens * batches

    def seconds(self, settings: TrainingSettings, step: Step) -> float:
        """Return the seconds of an epoch whose heaviest micro-batch is `step`; 0 where none of this
        way of computing was run.

        They are in proportion to those of steps that are about as large as the mean: of the step
        itself, else the median of others, as one may be a fifth off. Where none is, the step itself
        tells them, else the nearest: caches and threads make a large one faster or slower than a
        straight line has it.
        """
        run, mean = self._like(settings, step), self._mean(settings, step)
        own = of_setup(run, settings, step)
        if not own and len({(m.step.rows, m.step.width) for m in run}) < FEWEST:
            return 0.0
        near = [m for m in run if _apart(m.step, mean) <= _NEAR]
        if own and (not near or own[-1] in near):
            near = own[-1:]
        near = near or [min(run, key=lambda m: _apart(m.step, mean))]
        each = statistics.median(
            m.seconds / (self._step_work(m.step) + self._fixed_tokens) for m in near
        )
        _, batches = self._padded(settings)
        updates = batches / settings.gradient_accumulation * self._update_seconds(settings)
        return each * self.padded_cost(settings) + updates

    def untold_step(
        self, settings: TrainingSettings, step: Step, planned: Sequence[Step] = ()
    ) -> Step | None:
        """Return the micro-batch of mean width of an epoch whose heaviest is `step`, where none
        that was run or is `planned` to be is about as large.
        """
        mean = self._mean(settings, step)
        others = [*planned, *(m.step for m in self._like(settings, step))]
        return mean if all(_apart(other, mean) > _NEAR for other in others) else None

    def _padded(self, settings: TrainingSettings) -> tuple[int, int]:
        return padded_tokens(self._question.lengths, settings, self._bucket)

    def _mean(self, settings: TrainingSettings, step: Step) -> Step:
        return mean_step(step, *self._padded(settings), self._bucket)

    def _like(self, settings: TrainingSettings, step: Step) -> list[Measure]:
        """Return the measures of this way that compute attention and loss as the mean step does or
        as the heaviest: narrow micro-batches may have a whole loss where that one has chunks.
        """
        kinds = self._mean(settings, step), step
        return [
            m
            for m in self._of_way(settings)
            if any(self._alike(settings, m.step, kind) for kind in kinds)
        ]

    def _of_way(self, settings: TrainingSettings) -> list[Measure]:
        return [m for m in self._run if same_way(m.settings, settings)]

    def _alike(self, settings: TrainingSettings, one: Step, other: Step) -> bool:
        runtime = self._question.runtime
        attends = attends_alike(runtime, settings, one.width, other.width)
        return attends and computes_loss_alike(runtime, settings, one.learned, other.learned)

    def _step_work(self, step: Step) -> float:
        return self._work(step.tokens, step.learned)

    def _work(self, tokens: int, learned: int) -> float:
        """Return the time of so many tokens, of which `learned` are predicted, in the same unit."""
        return tokens - self._head_share * (tokens - learned)

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
            _fixed_tokens([(self._step_work(m.step), m.seconds) for m in self._of_way(settings)])
            for settings in ways
        ]
        return statistics.median([n for n in told if n is not None] or [_FIXED_TOKENS])

    def _update_seconds(self, settings: TrainingSettings) -> float:
        """Return the seconds of applying the gradient. They depend on the adapter alone."""
        run = [m.update_seconds for m in self._run if same_adapter(m.settings, settings)]
        return statistics.median(run) if run else 0.0


def _fixed_tokens(steps: Sequence[tuple[float, float]]) -> float | None:
    """Return the time of a micro-batch of no tokens, by that of one token; None where the steps,
    tokens and seconds, do not tell it.

    It is what the smallest takes too long: a slope that is a little off makes most of a large one.
    """
    smallest, seconds = min(steps)
    token = slope(steps)
    if max(tokens for tokens, _ in steps) < _APART * smallest or token <= 0:
        return None
    return max(0.0, seconds / token - smallest)


def _apart(one: Step, other: Step) -> float:
    """Return how many times as many tokens the larger of two micro-batches has."""
    return max(one.tokens, other.tokens) / min(one.tokens, other.tokens)

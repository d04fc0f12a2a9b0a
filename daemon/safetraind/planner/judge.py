"""Judges an option by the steps that were run: its peak, the degree of certainty, and its time.

What was measured at the very shape goes before what small steps of the same way of computing
extrapolate to, and that before the estimate from the model's shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from safetrain_shared.settings import TrainingSettings
from safetraind.planner.batch_shapes import heaviest_step, scaled
from safetraind.planner.candidates import LARGE_LOGITS
from safetraind.planner.degree import Degree
from safetraind.planner.epoch_time import EpochTime
from safetraind.planner.memory_estimate import (
    Peak,
    attends_alike,
    evaluated,
    expected,
    gradient_bytes,
    heaviest_part,
    holds_loss_alike,
    largest_array,
    most_per_square,
    predict,
)
from safetraind.planner.option import Option, Question
from safetraind.planner.peak_fit import FEWEST_TOKENS, Fit, Sample, fit
from safetraind.planner.ways import accumulates, of_setup, same_way
from safetraind.worker_messages.probe_messages import Measure, Step

# Relative cost of a token: computing the layers a second time; a loss in chunks where the logits
# are small; 16-bit and quantized matrices on a CPU, measured 10 to 80 times slower than float32
# with OpenBLAS.
_CHECKPOINTING_COST = 1.3
_SMALL_CHUNKS_COST = 1.02
_CPU_QUANTIZED_COST = 20.0
# What ran out of memory is planned again only with so much more of it. Until then a plan takes a
# smaller share of it beyond the weights.
_MORE_THAN_DIED = 1.25
_LEANER = 0.9


def valid(question: Question, measures: Sequence[Measure]) -> list[Measure]:
    """Return the steps that were run to their end, and whose peak would be the same within today's
    budget.
    """
    return [
        m
        for m in measures
        if not m.died and m.holds_under(memory_limit(question, m.settings, m.step))
    ]


def memory_limit(question: Question, settings: TrainingSettings, step: Step) -> int:
    """Return MLX's memory limit for a step within today's budget, in bytes."""
    return question.budget.limit_for(largest_array(question.runtime, settings, step))


class Judge:
    """Judges options of one question by the same measures."""

    def __init__(self, question: Question, measures: Sequence[Measure], bucket: int) -> None:
        self._question = question
        self._runtime = question.runtime
        self._bucket = bucket
        self._run = valid(question, measures)
        self.times = EpochTime(question, measures, self._run, bucket)
        self._fits: list[tuple[TrainingSettings, Step, Fit | None]] = []
        # What estimates were off by, at most, where steps were run.
        self.correction = max(
            (self._estimated(m).off_by(m.peak) for m in _large(self._run)),
            default=1.0,
        )
        self.deaths = [self._death(m) for m in measures if self._still_counts(m)]

    def option(self, settings: TrainingSettings) -> Option:
        """Return the way to train with its heaviest step, judged."""
        question = self._question
        step = heaviest_step(question.lengths, settings, bucket=self._bucket, valid=question.valid)
        step = heaviest_part(self._runtime, settings, step)
        peak, degree = self.peak(settings, step)
        option = Option(
            settings,
            peak=peak,
            cost=_cost(question, settings, step, self.times.padded_cost(settings)),
            step=step,
            largest=largest_array(self._runtime, settings, step),
            degree=degree,
            seconds=self.times.seconds(settings, step),
            limit=self._limit(settings, step),
        )
        beyond = self.beyond_weights(option)
        if any(beyond > _LEANER * death for death in self.deaths):
            return dataclasses.replace(option, peak=max(option.peak, question.budget.mlx + 1))
        return option

    def peak(self, settings: TrainingSettings, step: Step) -> tuple[int, Degree]:
        """Return the peak of a step, and to which degree it is known."""
        if measured := self._at(settings, step):
            return measured[-1].peak, Degree.MEASURED
        estimate = predict(self._runtime, settings, step).corrected(self.correction)
        curve = self._fit(settings, step)
        if curve is None or not curve.reaches(step.rows, step.width):
            return estimate, Degree.ESTIMATED
        peak = curve.peak(step.rows, step.width)
        if accumulates(settings):
            peak += gradient_bytes(self._question.shape, settings)
        limit = memory_limit(self._question, settings, step)
        if peak > limit >= estimate and self._runs_ahead(settings, step):
            return estimate, Degree.ESTIMATED
        if step.valid_width:
            evaluation = evaluated(self._runtime, settings, step)
            peak = max(peak, evaluation.corrected(self.correction))
        return peak, Degree.EXTRAPOLATED

    def _limit(self, settings: TrainingSettings, step: Step) -> int:
        """Return the memory limit to train under: that of today's budget, or of the measure, where
        MLX was at its limit then. A little more of it makes MLX run ahead further.
        """
        limit = memory_limit(self._question, settings, step)
        measured = self._at(settings, step)
        if not measured or measured[-1].peak <= min(measured[-1].limit, limit):
            return limit
        return measured[-1].limit or limit

    def expected(self, settings: TrainingSettings, step: Step) -> int:
        """Return the peak that an estimate expects to see with the memory that there is.

        It is corrected by the steps run in this way of computing; by others only upwards.
        """
        own = [
            self._estimated(m).off_by(m.peak)
            for m in _large(self._run)
            if same_way(m.settings, settings) and self._alike(settings, m.step, step)
        ]
        factor = max(own, default=max(1.0, self.correction))
        limit = memory_limit(self._question, settings, step)
        return expected(self._runtime, settings, step, limit).corrected(factor)

    def _estimated(self, measure: Measure) -> Peak:
        """Return the peak of a step that was run, estimated."""
        return expected(self._runtime, measure.settings, measure.step, measure.limit)

    def _runs_ahead(self, settings: TrainingSettings, step: Step) -> bool:
        """Return whether small steps took more than they needed. Near the limit no step does."""
        free = expected(self._runtime, settings, step, limit=1 << 62)
        return free.total > predict(self._runtime, settings, step).total

    def beyond_weights(self, option: Option) -> int:
        """Return an option's peak above the weights, in bytes."""
        return option.peak - predict(self._runtime, option.settings, option.step).weights

    def _at(self, settings: TrainingSettings, step: Step) -> list[Measure]:
        """Return the measures of exactly this setup, the newest last."""
        return of_setup(self._run, settings, step)

    def _fit(self, settings: TrainingSettings, step: Step) -> Fit | None:
        """Return the curve through the steps of this way of computing, of those that are large
        enough and that compute attention and hold logits as `step` does; with as large a share of
        predictions as it has.
        """
        for other, near, found in self._fits:
            same_share = scaled(near, step.rows, step.width).learned == step.learned
            if same_share and same_way(other, settings) and self._alike(settings, near, step):
                return found
        run = [
            m
            for m in self._run
            if m.step.tokens >= FEWEST_TOKENS
            and same_way(m.settings, settings)
            and not m.step.valid_width
            and self._alike(settings, m.step, step)
        ]
        widest = max((m.step.width for m in run), default=0)
        most = most_per_square(self._runtime, settings, widest)
        found = fit([self._sample(m, step) for m in run], most)
        self._fits.append((settings, step, found))
        return found

    def _alike(self, settings: TrainingSettings, one: Step, other: Step) -> bool:
        attends = attends_alike(self._runtime, settings, one.width, other.width)
        return attends and holds_loss_alike(self._runtime, settings, one.learned, other.learned)

    def _sample(self, measure: Measure, target: Step) -> Sample:
        """Return a step that was run, without what accumulation takes, and with the logits of as
        large a share of predictions as `target` has.
        """
        step, twice = measure.step, accumulates(measure.settings)
        own = twice * gradient_bytes(self._question.shape, measure.settings)
        alike = dataclasses.replace(measure, step=scaled(target, step.rows, step.width))
        more = self._estimated(alike).total - self._estimated(measure).total
        return Sample(step.rows, step.width, measure.peak - own + more)

    def _still_counts(self, measure: Measure) -> bool:
        """Return whether a death rules anything out. It does not where much more memory is
        available now.
        """
        limit = memory_limit(self._question, measure.settings, measure.step)
        return measure.died and limit < _MORE_THAN_DIED * measure.peak

    def _death(self, measure: Measure) -> int:
        """Return the bytes that a setup that died took beyond the weights, as far as is known."""
        peak, _ = self.peak(measure.settings, measure.step)
        return peak - predict(self._runtime, measure.settings, measure.step).weights


def _large(measures: Sequence[Measure]) -> list[Measure]:
    """Return the measures whose peak tells that of others: of 128 tokens, else of the most."""
    most = max((m.step.tokens for m in measures), default=0)
    return [m for m in measures if m.step.tokens >= min(most, FEWEST_TOKENS)]


def _cost(question: Question, settings: TrainingSettings, step: Step, padded: float) -> float:
    cost = padded
    if settings.gradient_checkpointing:
        cost *= _CHECKPOINTING_COST
    if settings.loss_chunk and 4 * step.learned * question.shape.vocabulary <= LARGE_LOGITS:
        cost *= _SMALL_CHUNKS_COST
    if question.quantized and question.device == "cpu" and not settings.dequantize:
        cost *= _CPU_QUANTIZED_COST
    return cost

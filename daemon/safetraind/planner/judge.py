"""Judges an option by the steps that were run: its peak, the degree of certainty, and its time.

What was measured at the very shape goes before what small steps of the same way of computing
extrapolate to, and that before the estimate from the model's shape.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence

from safetrain_shared.settings import TrainingSettings
from safetraind.planner.batch_shapes import heaviest_step, mean_step, padded_tokens
from safetraind.planner.candidates import LARGE_LOGITS
from safetraind.planner.degree import Degree
from safetraind.planner.memory_estimate import (
    Peak,
    Runtime,
    attends_alike,
    computes_loss_alike,
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
from safetraind.planner.peak_fit import FEWEST, FEWEST_TOKENS, Fit, Sample, fit
from safetraind.worker_messages.probe_messages import Measure, Step

# Time of a micro-batch beside its tokens, in tokens, before steps tell it: launching, loading,
# g++'s compiled parts.
_FIXED_TOKENS = 24
# A step of up to so many times the tokens tells a micro-batch's time, in proportion.
_TOLD = 1.25
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

# Whether two numbers of predictions have the same kind of loss.
Alike = Callable[[Runtime, TrainingSettings, int, int], bool]
_ENTERS_A_STEP = (
    "gradient_checkpointing",
    "loss_chunk",
    "dequantize",
    "lora_rank",
    "lora_layers",
    "lora_targets",
    "lora_dropout",
    "fine_tune_type",
    "packing",
)


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


def same_way(one: TrainingSettings, other: TrainingSettings) -> bool:
    """Return whether both compute a micro-batch in the same way, whatever its shape."""
    return all(getattr(one, name) == getattr(other, name) for name in _ENTERS_A_STEP)


def same_work(one: TrainingSettings, other: TrainingSettings) -> bool:
    """Return whether both compute the same step, apart from its shape."""
    return accumulates(one) == accumulates(other) and same_way(one, other)


def _same_adapter(one: TrainingSettings, other: TrainingSettings) -> bool:
    names = ("lora_rank", "lora_layers", "lora_targets", "fine_tune_type")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def accumulates(settings: TrainingSettings) -> bool:
    """Return whether gradients of several micro-batches are added up, which needs a second copy of
    them.
    """
    return settings.gradient_accumulation > 1


class Judge:
    """Judges options of one question by the same measures."""

    def __init__(self, question: Question, measures: Sequence[Measure], bucket: int) -> None:
        self._question = question
        self._runtime = question.runtime
        self._bucket = bucket
        self._run = valid(question, measures)
        # A step takes the same time under another memory limit, if not the same memory.
        self._timed = [m for m in measures if not m.died]
        self._fits: list[tuple[TrainingSettings, Step, Alike, Fit | None]] = []
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
        tokens, batches = padded_tokens(question.lengths, settings, self._bucket)
        peak, degree = self.peak(settings, step)
        option = Option(
            settings,
            peak=peak,
            cost=_cost(question, settings, step, self._padded_cost(tokens, batches)),
            step=step,
            largest=largest_array(self._runtime, settings, step),
            degree=degree,
            seconds=self._seconds(settings, step, tokens, batches),
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
        large = [m for m in self._run if _tokens(m.step) >= FEWEST_TOKENS]
        curve = self._fit(large, settings, step, holds_loss_alike)
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
            if same_way(m.settings, settings)
            and self._alike(settings, m.step, step, holds_loss_alike)
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
        return _of_setup(self._run, settings, step)

    def _fit(
        self, measures: Sequence[Measure], settings: TrainingSettings, step: Step, alike: Alike
    ) -> Fit | None:
        """Return the curve through the `measures` of this way of computing, of those that compute
        attention as `step` does, and whose loss is `alike`.
        """
        for other, near, by, found in self._fits:
            if by is alike and same_way(other, settings) and self._alike(settings, near, step, by):
                return found
        run = [
            m
            for m in measures
            if same_way(m.settings, settings)
            and not m.step.valid_width
            and self._alike(settings, m.step, step, alike)
        ]
        widest = max((m.step.width for m in run), default=0)
        most = most_per_square(self._runtime, settings, widest)
        found = fit([self._sample(m) for m in run if m.tokens_per_second], most)
        self._fits.append((settings, step, alike, found))
        return found

    def _alike(self, settings: TrainingSettings, one: Step, other: Step, alike: Alike) -> bool:
        attends = attends_alike(self._runtime, settings, one.width, other.width)
        return attends and alike(self._runtime, settings, one.learned, other.learned)

    def _sample(self, measure: Measure) -> Sample:
        step, twice = measure.step, accumulates(measure.settings)
        own = twice * gradient_bytes(self._question.shape, measure.settings)
        return Sample(step.rows, step.width, measure.peak - own, measure.seconds)

    def _seconds(self, settings: TrainingSettings, step: Step, tokens: int, batches: int) -> float:
        """Return the seconds of an epoch by the steps that were run; 0 where there were none of
        this way.

        They are in proportion to those of the step whose tokens are nearest to the mean of the
        epoch's micro-batches, where one is about as large. Else to those of the step itself: caches
        and threads make a large one faster or slower than a straight line has it.
        """
        updates = batches / settings.gradient_accumulation * self._update_seconds(settings)
        mean = mean_step(step, tokens, batches, self._bucket)
        near = self._nearest(settings, step, mean)
        own = _of_setup(self._timed, settings, step)
        if own and near and _apart(near.step, mean) > _TOLD:
            near = own[-1]
        if near is None:
            return 0.0
        share = self._padded_cost(tokens, batches) / self._padded_cost(_tokens(near.step), 1)
        return share * near.seconds + updates

    def untold_step(self, option: Option) -> Step | None:
        """Return the micro-batch of mean width of an option's epoch, where no step that was run
        tells its time.
        """
        settings, step = option.settings, option.step
        tokens, batches = padded_tokens(self._question.lengths, settings, self._bucket)
        mean = mean_step(step, tokens, batches, self._bucket)
        near = self._nearest(settings, step, mean)
        if mean.width == step.width or (near and _apart(near.step, mean) <= _TOLD):
            return None
        return mean

    def _nearest(self, settings: TrainingSettings, step: Step, mean: Step) -> Measure | None:
        """Return the measure, of this way of computing, whose tokens are nearest to those of
        `mean`; None where too few were run to tell the time. `step` is the heaviest. The loss of
        narrow micro-batches may be computed whole where the heaviest has it in chunks.
        """
        run = [
            m
            for m in self._timed
            if m.tokens_per_second
            and same_way(m.settings, settings)
            and any(self._alike(settings, m.step, s, computes_loss_alike) for s in (mean, step))
        ]
        if len({(m.step.rows, m.step.width) for m in run}) < FEWEST and not _of_setup(
            run, settings, step
        ):
            return None
        return min(reversed(run), key=lambda m: _apart(m.step, mean))

    def _padded_cost(self, tokens: int, batches: int) -> float:
        """Return the time of so many tokens in so many micro-batches, in units of one token's."""
        return tokens + self._fixed_tokens * batches

    @functools.cached_property
    def _fixed_tokens(self) -> float:
        """The time of a micro-batch beside its tokens, in tokens.

        One for all ways of computing, the median of what their curves say: each is of a few small
        steps, and where each way had its own, narrow micro-batches seemed faster with the layers
        computed twice.
        """
        curves = [
            self._fit(self._timed, m.settings, m.step, computes_loss_alike) for m in self._timed
        ]
        known = {c.samples: c.fixed_tokens for c in curves if c and c.fixed_tokens is not None}
        return statistics.median(known.values()) if known else _FIXED_TOKENS

    def _update_seconds(self, settings: TrainingSettings) -> float:
        """Return the seconds of applying the gradient. They depend on the adapter alone."""
        run = [m.update_seconds for m in self._timed if _same_adapter(m.settings, settings)]
        return statistics.median(run) if run else 0.0

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
    most = max((_tokens(m.step) for m in measures), default=0)
    return [m for m in measures if _tokens(m.step) >= min(most, FEWEST_TOKENS)]


def _tokens(step: Step) -> int:
    """Return the tokens of a micro-batch, padding included."""
    return step.rows * step.width


def _apart(one: Step, other: Step) -> float:
    """Return how many times as many tokens the larger of two micro-batches has."""
    return max(_tokens(one), _tokens(other)) / min(_tokens(one), _tokens(other))


def _of_setup(measures: Sequence[Measure], settings: TrainingSettings, step: Step) -> list[Measure]:
    """Return the measures of exactly this setup."""
    return [m for m in measures if m.step == step and same_work(m.settings, settings)]


def _cost(question: Question, settings: TrainingSettings, step: Step, padded: float) -> float:
    cost = padded
    if settings.gradient_checkpointing:
        cost *= _CHECKPOINTING_COST
    if settings.loss_chunk and 4 * step.learned * question.shape.vocabulary <= LARGE_LOGITS:
        cost *= _SMALL_CHUNKS_COST
    if question.quantized and question.device == "cpu" and not settings.dequantize:
        cost *= _CPU_QUANTIZED_COST
    return cost

"""Decides what the probe runs next: small steps of a way of computing, or a plan's heaviest."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from safetrain_shared.attention import LEAST_WIDTH
from safetrain_shared.settings import LENGTH_BUCKET, TrainingSettings
from safetraind.planner.batch_shapes import narrower_steps, sample_of, scaled
from safetraind.planner.choose_plan import bucket_of, fits, judge, options, rank, smallest
from safetraind.planner.degree import Degree
from safetraind.planner.judge import memory_limit, valid
from safetraind.planner.memory_estimate import (
    attends_alike,
    computes_loss_alike,
    holds_loss_alike,
    predict,
)
from safetraind.planner.option import Option, Question
from safetraind.planner.peak_fit import FEWEST, FEWEST_TOKENS, probe_shapes
from safetraind.planner.ways import same_way
from safetraind.worker_messages.probe_messages import Measure, Setup, Step

# An estimate may be too high by as much; an extrapolation by less.
_LIKELY = 1.3
_NEARLY = 1.03
# What was said to take so much longer was the faster one at times: it is run too. By cost alone a
# time is less sure.
_AS_FAST = 1.15
_PERHAPS_AS_FAST = 1.25
_MOST_SAMPLED = 4
# Longer micro-batches take too much of the time there is to run several plans. Another is then only
# run if it is so much faster by the steps that were run: of their times, one or two each, small
# differences say nothing.
_QUICK_SECONDS = 2.0
_FASTER_IF_NOT_COMPARED = 1.05
# A sample of an epoch takes about so many seconds, and has so many micro-batches.
_SAMPLE_SECONDS = 5.0
_LEAST_SAMPLE = 4
_LARGEST_SAMPLE = 16
_MOST_WAYS = 3
# A way of so many times the cost waits: quantized matrices on a CPU, which are rarely the fastest.
_MUCH_SLOWER = 3
# After a death only what takes so much less of the memory beyond the weights is tried.
_MUCH_LEANER = 0.75


def next_probe(
    question: Question, measures: Sequence[Measure], seconds: float = math.inf
) -> list[Setup]:
    """Return the setups to run next, in order; empty where nothing more could change the plan.

    Small shapes first, for each way of computing that may turn out best; then the best plan itself;
    then those that may be as fast, as long as steps are quick. Where the `seconds` that are left do
    not suffice for the small shapes, the best plan that fits comes before them, if it takes less.
    """
    found = _worth_trying(question, measures)
    if not found:
        return []
    best = found[0]
    settled = sum(_is_settled(question, option, measures) for option in found)
    # After a death a plan that fits is enough: each further one may cost another process.
    is_compared = _is_quick(best, measures) and not judge(question, measures).deaths
    if best.degree is Degree.ESTIMATED and not (is_compared and settled):
        small = _small_setups(question, found, measures)
        if small:
            return _in_time(question, found, small, measures, seconds)
        return _whole(question, best, measures)
    if not is_compared:
        known = [o.seconds for o in found if o.degree is Degree.MEASURED]
        known_well = known and min(known) <= _FASTER_IF_NOT_COMPARED * best.seconds
        return [] if known_well else _whole(question, best, measures)
    contenders = _contenders(question, best, measures)[: max(0, _MOST_SAMPLED - settled)]
    return [setup for option in contenders for setup in _whole(question, option, measures)]


def _worth_trying(question: Question, measures: Sequence[Measure]) -> list[Option]:
    """Return the options that fit or may fit, the best first.

    Where none fits, the leanest comes last, which may fit after all. Its sequences may be shorter:
    where others fit, its time is not to be compared with theirs. An option whose weights alone are
    too much is left out. After a death only a much leaner option is returned, unless it was
    measured.
    """
    likely = [o for o in options(question, measures) if _may_fit(question, o)]
    likely.sort(key=rank(question))
    tried = _lean_enough(question, likely, measures)
    if any(option.degree is Degree.MEASURED for option in likely):
        tried = [option for option in tried if fits(question, option)]
    if not any(fits(question, option) for option in tried):
        leanest = smallest(question, measures)
        if leanest.degree is Degree.ESTIMATED or fits(question, leanest):
            tried += _lean_enough(question, [leanest], measures)
    return [o for o in tried if _weights(question, o) <= question.budget.mlx]


def _lean_enough(
    question: Question, found: Sequence[Option], measures: Sequence[Measure]
) -> list[Option]:
    """Return the options that may be run after what died, if anything did."""
    by_measures = judge(question, measures)
    return [
        option
        for option in found
        if option.degree is Degree.MEASURED
        or all(
            by_measures.beyond_weights(option) <= _MUCH_LEANER * death
            for death in by_measures.deaths
        )
    ]


def _may_fit(question: Question, option: Option) -> bool:
    if fits(question, option):
        return True
    largest = question.largest_buffer
    if option.degree is Degree.MEASURED or 0 < largest < option.largest:
        return False
    leeway = _LIKELY if option.degree is Degree.ESTIMATED else _NEARLY
    return option.peak <= leeway * question.budget.room(option.degree)


def _contenders(question: Question, best: Option, measures: Sequence[Measure]) -> list[Option]:
    """Return the best option and those that may fit and may be as fast, the best first, but for
    those that were run over a sample of an epoch.

    Times by single steps are up to a tenth off, and a way that takes another share of the memory is
    slower near the limit: what is close is told apart only by running it. What computes its layers
    twice only saves memory.
    """
    by_measures = judge(question, measures)

    def is_close(option: Option) -> bool:
        is_told = by_measures.option(option.settings).seconds > 0
        margin = _AS_FAST if is_told else _PERHAPS_AS_FAST
        return option.seconds <= margin * best.seconds

    close = [
        option
        for option in _lean_enough(question, options(question, measures), measures)
        if option.settings.effective_batch == best.settings.effective_batch
        and option.settings.max_seq_length >= best.settings.max_seq_length
        and option.settings.gradient_checkpointing <= best.settings.gradient_checkpointing
        and _may_fit(question, option)
        and _is_quick(option, measures)
        and is_close(option)
    ]
    close.sort(key=rank(question))
    others = [option for option in close if option != best]
    if best.degree is Degree.MEASURED and not others:
        return []  # its peak is known, and there is nothing to compare its time with
    return [o for o in [best, *others] if not _is_settled(question, o, measures)]


def _is_settled(question: Question, option: Option, measures: Sequence[Measure]) -> bool:
    """Return whether an option was run at its heaviest step and over a sample of an epoch."""
    times = judge(question, measures).times
    is_measured = option.degree is Degree.MEASURED
    return is_measured and times.is_sampled(option.settings, option.step)


def _is_quick(option: Option, measures: Sequence[Measure]) -> bool:
    return _seconds(option, measures) <= _QUICK_SECONDS


def _seconds(option: Option, measures: Sequence[Measure]) -> float:
    """Return the seconds of an option's heaviest micro-batch, by the fastest step that was run."""
    rate = max((m.tokens_per_second for m in measures), default=0.0)
    return option.step.tokens / rate if rate else 0.0


def _in_time(
    question: Question,
    found: Sequence[Option],
    small: list[Setup],
    measures: Sequence[Measure],
    seconds: float,
) -> list[Setup]:
    """Return the small setups where `seconds` suffice for them. Where not, nothing if a plan is
    measured, else the best one that fits before what may be faster, unless it takes longer still.
    """
    times = judge(question, measures).times

    def needed(setups: Sequence[Setup]) -> float:
        total = 0.0
        for setup in setups:
            option = next(o for o in found if same_way(o.settings, setup.settings))
            token = option.seconds / times.padded_cost(option.settings)
            # A step that compiles and another one.
            total += 2 * setup.step.tokens * token
        return total

    if needed(small) <= seconds:
        return small
    if any(option.degree is Degree.MEASURED for option in found):
        return []
    sure = next((option for option in found if fits(question, option)), found[0])
    return min(small, _whole(question, sure, measures), key=needed)


def _whole(question: Question, option: Option, measures: Sequence[Measure]) -> list[Setup]:
    """Return an option's heaviest step, with others of its epoch: those that may take more memory,
    and where steps are quick a sample of all. Else the step of mean width comes before, by which an
    epoch's time is told, unless one about as large was run.

    Near MLX's limit a narrower one may take more, as what it needs is held back at other arrays:
    gemma2 took 420 MB for 160 tokens and 439 for 128, under a limit of 415.
    """
    settings, step, bucket = option.settings, option.step, bucket_of(question)
    others = narrower_steps(question.lengths, settings, step, bucket)
    whole = dataclasses.replace(_setup(question, settings, step), narrower=others)
    times = judge(question, measures).times
    mean = times.mean_step(settings, step)
    if _is_quick(option, measures):
        seconds = _seconds(option, measures) * mean.tokens / step.tokens
        number = int(_SAMPLE_SECONDS / seconds) if seconds else _LARGEST_SAMPLE
        number = max(_LEAST_SAMPLE, min(number, _LARGEST_SAMPLE))
        sample = sample_of(question.lengths, settings, bucket, number)
        return [dataclasses.replace(whole, sample=sample)]
    if times.is_told(settings, step, mean):
        return [whole]
    return [_alone(question, settings, mean), whole]


def _alone(question: Question, settings: TrainingSettings, step: Step) -> Setup:
    """Return a step of one micro-batch: a second one takes as long again and tells nothing more."""
    settings = dataclasses.replace(settings, gradient_accumulation=1, batch_size=step.rows)
    return dataclasses.replace(_setup(question, settings, step), small=True)


def _setup(question: Question, settings: TrainingSettings, step: Step) -> Setup:
    return Setup(settings, step, memory_limit(question, settings, step))


def _small_setups(
    question: Question, found: Sequence[Option], measures: Sequence[Measure]
) -> list[Setup]:
    """Return small shapes of the best option's way of computing. Where it may not fit, add those of
    the next ways, up to one that surely fits. A much slower one waits until the others are known.
    """
    ways: list[Option] = []
    for option in found:
        if len(ways) == _MOST_WAYS or (ways and option.degree is not Degree.ESTIMATED):
            break
        if ways and option.cost > _MUCH_SLOWER * ways[0].cost:
            break
        if not any(same_way(option.settings, way.settings) for way in ways):
            ways.append(option)
        if option.peak * _LIKELY <= question.budget.room(Degree.ESTIMATED):
            break
    run = valid(question, measures)
    return [
        setup
        for way in ways
        for setup in _shapes(question, way, measures)
        if not any(m.step == setup.step and same_way(m.settings, setup.settings) for m in run)
    ]


def _shapes(question: Question, option: Option, measures: Sequence[Measure]) -> list[Setup]:
    """Return the small shapes of an option, with as large a share of predictions as its heaviest
    step; that step itself where fewer than two are large enough.

    A loss in chunks has more than one chunk in each of them, as it has there, and attention is
    computed in the same way. Where too few of them hold as many chunks at once as the heaviest
    step, the lightest is kept to tell times, and two narrower shapes of all rows tell the peak.
    """
    runtime, step, settings = question.runtime, option.step, option.settings
    shorter = [n for n in (LEAST_WIDTH, runtime.shape.window) if n < step.width]
    other = [n for n in shorter if not attends_alike(runtime, settings, n, step.width)]
    least = max(other, default=0) + LENGTH_BUCKET
    small = [
        shape
        for shape in _steps(step, probe_shapes(step.rows, step.width, LENGTH_BUCKET, least))
        if computes_loss_alike(runtime, settings, shape.learned, step.learned)
    ]
    narrower = [(step.rows, width) for width in range(least, step.width, LENGTH_BUCKET)]
    alike = [
        [s for s in shapes if holds_loss_alike(runtime, settings, s.learned, step.learned)]
        for shapes in (small, _steps(step, narrower))
    ]
    if len(alike[0]) < FEWEST <= len(alike[1]):
        small = list(dict.fromkeys([*small[:1], alike[1][0], alike[1][-1]]))
    if len(small) < FEWEST:
        return _whole(question, option, measures)
    return [_alone(question, settings, s) for s in small]


def _steps(step: Step, shapes: Sequence[tuple[int, int]]) -> list[Step]:
    """Return steps of those shapes (rows, width) that are large enough, with the share of
    predictions that `step` has.
    """
    return [scaled(step, rows, width) for rows, width in shapes if rows * width >= FEWEST_TOKENS]


def _weights(question: Question, option: Option) -> int:
    return predict(question.runtime, option.settings, option.step).weights

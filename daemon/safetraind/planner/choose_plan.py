"""Finds the fastest settings that fit. Pure: measures go in, a plan or a refusal comes out.

`candidates` has the ways to train; here each is judged by the memory and the time that it takes.
What was measured goes before what was only rehearsed, and that before what was estimated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import Plan
from safetrain_shared.settings import TrainingSettings
from safetraind.planner.batch_shapes import heaviest_step, padded_tokens
from safetraind.planner.candidates import (
    LARGE_LOGITS,
    candidates,
    length_bucket,
    lengths,
    starting_settings,
)
from safetraind.planner.memory_estimate import Step, heaviest_part, largest_array, predict
from safetraind.planner.option import MEASURED, REHEARSED, Measure, Option, Question
from safetraind.planner.plan_limits import frozen
from safetraind.planner.refusal import refuse

# Time of a micro-batch beside its tokens, in tokens: launching, loading, g++'s compiled parts.
_FIXED_TOKENS = 24
# Relative cost of a token: recomputing the layers on the way there once more; a loss in chunks
# where the logits are small; 16-bit and quantized matrices on a CPU, measured 10 to 80 times slower
# than float32 with OpenBLAS.
_CHECKPOINTING_COST = 1.3
_SMALL_CHUNKS_COST = 1.02
_CPU_QUANTIZED_COST = 20.0
# What ran out of memory is planned again only with so much more of it. Until then a plan takes a
# smaller share of it beyond the weights, and what is tried next a still smaller one.
_MORE_THAN_DIED = 1.25
_LEANER = 0.9
_MUCH_LEANER = 0.75
# An estimate may be too high by as much.
_LIKELY = 1.3


def plan(question: Question, measures: Sequence[Measure] = ()) -> Plan | Finding:
    """The fastest plan that fits, or a blocking finding with the smallest change that would."""
    judged = options(question, measures)
    fitting = [option for option in judged if fits(question, option)]
    if not fitting:
        return refuse(question, smallest(question, measures), _correction(question, measures))
    surest = max(option.sureness for option in fitting)
    best = min((o for o in fitting if o.sureness == surest), key=_rank(question))
    rank = _rank(question, measured=False)
    too_large = [o for o in judged if o.peak <= _room(question, o) and not fits(question, o)]
    return frozen(
        question,
        best,
        predicted=_predicted(question, best, measures),
        bucket=_bucket(question),
        held_by_buffer=any(rank(option) < rank(best) for option in too_large),
    )


def _predicted(question: Question, option: Option, measures: Sequence[Measure]) -> int:
    """The peak as it was thought to be before it was measured."""
    if option.sureness < MEASURED:
        return option.peak
    rehearsed = (
        m.peak
        for m in measures
        if not (m.tokens_per_second or m.died)
        and m.step == option.step
        and same_work(m.settings, option.settings)
    )
    return next(rehearsed, predict(question.shape, option.settings, option.step).total)


def is_settled(question: Question, measures: Sequence[Measure]) -> bool:
    """Whether the plan was measured, and nothing that may be faster is untried."""
    fitting = [option for option in options(question, measures) if fits(question, option)]
    measured = [option for option in fitting if option.sureness == MEASURED]
    if not measured:
        return False
    rank = _rank(question, measured=False)
    best = min(map(rank, measured))
    return not any(rank(option) < best for option in fitting if option.sureness < MEASURED)


def options(question: Question, measures: Sequence[Measure] = ()) -> list[Option]:
    """All ways to train, the longest sequences first and among those the fastest first.

    Shorter sequences come in only where no longer ones fit.
    """
    settings, bucket = starting_settings(question), _bucket(question)
    found: list[Option] = []
    for length in lengths(question, settings):
        judged = [
            _judged(question, candidate, measures, bucket)
            for candidate in candidates(question, settings, length, bucket)
        ]
        found += sorted(judged, key=_rank(question, measured=False))
        if any(fits(question, option) for option in judged):
            break
    return found


def fits(question: Question, option: Option) -> bool:
    """Whether the option's peak has room, and each of its arrays a buffer."""
    largest = question.largest_buffer
    return option.peak <= _room(question, option) and not 0 < largest < option.largest


def smallest(question: Question, measures: Sequence[Measure] = ()) -> Option:
    """The way to train that takes the least memory, whether it fits or not."""
    settings, bucket = starting_settings(question), _bucket(question)
    length = lengths(question, settings)[-1]
    found = [
        _judged(question, candidate, measures, bucket)
        for candidate in candidates(question, settings, length, bucket)
    ]
    return min(found, key=lambda option: option.peak)


def to_try(question: Question, measures: Sequence[Measure], most: int) -> list[Option]:
    """What a probe should rehearse and measure, at most so many ways: those that may well fit
    first, the fastest first, and the leanest last, which may fit after all. Never one whose weights
    alone are too much; after a death only what is a good deal leaner.
    """
    deaths = _deaths(question, measures)
    untried = [
        option
        for option in options(question, measures)
        if (option.sureness < REHEARSED or (option.sureness < MEASURED and fits(question, option)))
        and all(_beyond_weights(question, option) <= _MUCH_LEANER * death for death in deaths)
    ]
    likely = [o for o in untried if o.peak <= _LIKELY * _room(question, o)]
    rest = [o for o in untried if o not in likely]
    chosen = [*[*likely, *rest][:most], smallest(question, measures)]
    return [option for option in chosen if _weights(question, option) <= question.budget.mlx]


def same_work(one: TrainingSettings, other: TrainingSettings) -> bool:
    """Both compute the same step, but for its shape: only what does not enter it may differ."""
    accumulate = [settings.gradient_accumulation > 1 for settings in (one, other)]
    return accumulate[0] == accumulate[1] and all(
        getattr(one, name) == getattr(other, name) for name in _ENTERS_A_STEP
    )


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


def _judged(
    question: Question, settings: TrainingSettings, measures: Sequence[Measure], bucket: int
) -> Option:
    """Measured or rehearsed where this very setup was; else estimated, corrected by what was."""
    step = heaviest_step(
        question.lengths, settings, fused=question.fused, bucket=bucket, valid=question.valid
    )
    step = heaviest_part(question.shape, settings, step)
    tokens, batches = padded_tokens(question.lengths, settings, bucket)
    option = Option(
        settings,
        peak=predict(question.shape, settings, step).corrected(_correction(question, measures)),
        cost=_cost(question, settings, step, tokens, batches),
        step=step,
        largest=largest_array(question.shape, settings, step),
    )
    known = _known(option, measures)
    if measured := [m for m in known if m.tokens_per_second]:
        speed = measured[-1].tokens_per_second
        option = dataclasses.replace(
            option,
            peak=measured[-1].peak,
            sureness=MEASURED,
            tokens_per_second=speed,
            seconds=tokens / speed,
        )
    elif known:
        option = dataclasses.replace(option, peak=known[-1].peak, sureness=REHEARSED)
    if any(
        _beyond_weights(question, option) > _LEANER * died for died in _deaths(question, measures)
    ):
        return dataclasses.replace(option, peak=max(option.peak, question.budget.mlx + 1))
    return option


def _known(option: Option, measures: Sequence[Measure]) -> list[Measure]:
    """What was seen of this very setup, the newest last."""
    same = [m for m in measures if not m.died and m.step == option.step]
    return [m for m in same if same_work(m.settings, option.settings)]


def _deaths(question: Question, measures: Sequence[Measure]) -> list[int]:
    """What the setups that died took beyond the weights, as far as anybody knew: what takes as much
    cannot be trusted, unless there is a good deal more memory now.
    """
    found = []
    for death in measures:
        if death.died and question.budget.mlx < _MORE_THAN_DIED * death.peak:
            peak = predict(question.shape, death.settings, death.step)
            option = Option(
                death.settings, peak.corrected(_correction(question, measures)), 0.0, death.step
            )
            known = _known(option, measures)
            found.append((known[-1].peak if known else option.peak) - peak.weights)
    return found


def _beyond_weights(question: Question, option: Option) -> int:
    return option.peak - predict(question.shape, option.settings, option.step).weights


def _correction(question: Question, measures: Sequence[Measure]) -> float:
    """What the prediction was off by, at most, where it was measured."""
    seen = [m for m in measures if not m.died]
    return max(
        (predict(question.shape, m.settings, m.step).off_by(m.peak) for m in seen), default=1.0
    )


def _room(question: Question, option: Option) -> int:
    return question.budget.room(measured=option.sureness == MEASURED)


def _weights(question: Question, option: Option) -> int:
    return predict(question.shape, option.settings, option.step).weights


def _bucket(question: Question) -> int:
    settings = starting_settings(question)
    return length_bucket(question, settings, lengths(question, settings)[0])


def _rank(question: Question, *, measured: bool = True) -> Callable[[Option], tuple[float, ...]]:
    """The order of options, the best first: those that keep the effective batch, then the fastest,
    by what was measured or, among options of which not all were, by the cost; then the leanest.
    """
    kept = starting_settings(question).effective_batch

    def rank(option: Option) -> tuple[float, ...]:
        time = option.seconds if measured and option.seconds else option.cost
        return option.settings.effective_batch != kept, time, option.peak

    return rank


def _cost(
    question: Question, settings: TrainingSettings, step: Step, tokens: int, batches: int
) -> float:
    cost = float(tokens + _FIXED_TOKENS * batches)
    if settings.gradient_checkpointing:
        cost *= _CHECKPOINTING_COST
    if settings.loss_chunk and 4 * step.learned * question.shape.vocabulary <= LARGE_LOGITS:
        cost *= _SMALL_CHUNKS_COST
    if question.quantized and question.device == "cpu" and not settings.dequantize:
        cost *= _CPU_QUANTIZED_COST
    return cost

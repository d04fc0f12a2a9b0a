"""Finds the fastest settings that fit. Pure: measures go in, a plan or a refusal comes out.

The user's choices stand. Where the user chose nothing, the tier of the table is the beginning: its
effective batch and its learning rate are kept, and what decides memory and speed is searched:
micro-batch and accumulation, sequence length, gradient checkpointing, loss in chunks, and on a CPU
whether a quantized base is computed as float32.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import Plan
from safetrain_shared.settings import TrainingSettings
from safetraind.preflight.memory import Step, predict
from safetraind.preflight.option import MEASURED, REHEARSED, Measure, Option, Question
from safetraind.preflight.refusal import refuse
from safetraind.preflight.shapes import LENGTH_BUCKET, compiled_shapes, heaviest_step, padded_tokens
from safetraind.preflight.tiers import Tier, tier_for

# A run of few steps learns little: tiny data keeps a smaller effective batch than the tier's.
_LEAST_STEPS_AN_EPOCH = 50
_LEAST_EFFECTIVE_BATCH = 4
_LOSS_CHUNKS = (0, 256)
_SHORTER = (4096, 2048, 1024, 512, 256, 128)
# Time of a micro-batch beside its tokens, in tokens: launching, loading, g++'s compiled parts.
_FIXED_TOKENS = 24
# Relative cost of a token: recomputing the layers on the way there once more; 16-bit and quantized
# matrices on a CPU, measured 10 to 80 times slower than float32 with OpenBLAS.
_CHECKPOINTING_COST = 1.3
_CHUNKS_COST = 1.02
_CPU_QUANTIZED_COST = 20.0


def plan(question: Question, measures: Sequence[Measure] = ()) -> Plan | Finding:
    """The fastest plan that fits, or a blocking finding with the smallest change that would.

    What was measured goes before what was only rehearsed, and that before what was estimated.
    """
    fitting = [option for option in options(question, measures) if _fits(question, option)]
    if not fitting:
        return refuse(question.shape, question.budget, smallest(question, measures))
    surest = max(option.sureness for option in fitting)
    best = min((o for o in fitting if o.sureness == surest), key=lambda o: (o.cost, o.peak))
    return _frozen(question, best, measures)


def options(question: Question, measures: Sequence[Measure] = ()) -> list[Option]:
    """All ways to train, the longest sequences first and among those the fastest first.

    Shorter sequences come in only where no longer ones fit.
    """
    settings = starting_settings(question)
    found: list[Option] = []
    for length in _lengths(question, settings):
        judged = [
            _judged(question, candidate, measures)
            for candidate in _candidates(question, settings, length)
        ]
        found += sorted(judged, key=lambda option: (option.cost, option.peak))
        if any(_fits(question, option) for option in judged):
            break
    return found


def _fits(question: Question, option: Option) -> bool:
    room = question.budget.room(measured=option.sureness == MEASURED)
    return option.peak <= room


def smallest(question: Question, measures: Sequence[Measure] = ()) -> Option:
    """The way to train that takes the least memory, whether it fits or not."""
    settings = starting_settings(question)
    length = _lengths(question, settings)[-1]
    found = [
        _judged(question, candidate, measures)
        for candidate in _candidates(question, settings, length)
    ]
    return min(found, key=lambda option: option.peak)


def starting_settings(question: Question) -> TrainingSettings:
    """The tier's settings with the user's choices on them, and the effective batch decided."""
    tier, chosen = tier_for(question.available), dict(question.spec.settings)
    settings = TrainingSettings(
        batch_size=tier.batch_size,
        gradient_accumulation=tier.gradient_accumulation,
        max_seq_length=tier.max_seq_length,
        learning_rate=tier.learning_rate,
    ).with_overrides(chosen)
    if question.text_only and "mask_prompt" not in chosen:
        settings = dataclasses.replace(settings, mask_prompt=False)
    if "batch_size" in chosen or "gradient_accumulation" in chosen:
        return settings
    return _for_tiny_data(question, settings, keep_rate="learning_rate" in chosen)


def _for_tiny_data(
    question: Question, settings: TrainingSettings, *, keep_rate: bool
) -> TrainingSettings:
    """Halves the effective batch while an epoch has too few steps, and the rate with it.

    (The linear rule of Goyal et al. 2017: the rate belongs to the batch.)
    """
    batch, rate = settings.effective_batch, settings.learning_rate
    while batch > _LEAST_EFFECTIVE_BATCH and question.samples / batch < _LEAST_STEPS_AN_EPOCH:
        batch, rate = batch // 2, rate if keep_rate else rate / 2
    micro = min(settings.batch_size, batch)
    return dataclasses.replace(
        settings, batch_size=micro, gradient_accumulation=batch // micro, learning_rate=rate
    )


def _lengths(question: Question, settings: TrainingSettings) -> list[int]:
    """Sequence lengths to try, the best first: all of the data, then shorter ones.

    Below the tier's own length only where the user allowed it: it may cut away what is to be
    learned, and a refusal that names the length lets the user decide.
    """
    if "max_seq_length" in question.spec.settings:
        return [settings.max_seq_length]
    whole = LENGTH_BUCKET * math.ceil(max(8, question.lengths.longest) / LENGTH_BUCKET)
    least = 1 if question.spec.allow_shorter else settings.max_seq_length
    return [whole, *(n for n in _SHORTER if least <= n < whole)]


def _candidates(
    question: Question, settings: TrainingSettings, length: int
) -> Iterator[TrainingSettings]:
    chosen = question.spec.settings

    def free(name: str, *values: object) -> Sequence[object]:
        return [getattr(settings, name)] if name in chosen else values

    rows = [settings.batch_size] if "batch_size" in chosen else _divisors(settings.effective_batch)
    dequantized = (True, False) if question.device == "cpu" and question.quantized else (False,)
    for micro, recompute, chunk, dequantize in itertools.product(
        rows,
        free("gradient_checkpointing", False, True),
        free("loss_chunk", *_LOSS_CHUNKS),
        free("dequantize", *dequantized),
    ):
        accumulation = settings.gradient_accumulation
        if "gradient_accumulation" not in chosen:
            accumulation = max(1, settings.effective_batch // micro)
        yield dataclasses.replace(
            settings,
            batch_size=micro,
            gradient_accumulation=accumulation,
            max_seq_length=length,
            gradient_checkpointing=bool(recompute),
            loss_chunk=int(str(chunk)),
            dequantize=bool(dequantize),
        )


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _judged(question: Question, settings: TrainingSettings, measures: Sequence[Measure]) -> Option:
    """Measured or rehearsed where this very setup was; else estimated, corrected by what was."""
    step, cost = _step(question, settings), _cost(question, settings)
    same = [m for m in measures if m.step == step and _same_work(m.settings, settings)]
    for measure in same:
        if speed := measure.tokens_per_second:
            tokens, _ = padded_tokens(question.lengths, settings.max_seq_length, step.rows)
            return Option(settings, measure.peak, tokens / speed, step, MEASURED, speed)
    if same:
        return Option(settings, same[0].peak, cost, step, REHEARSED)
    peak = predict(question.shape, settings, step).total
    return Option(settings, round(peak * _correction(question, measures)), cost, step)


def _step(question: Question, settings: TrainingSettings) -> Step:
    fused = question.device != "cpu"
    rows, length = settings.batch_size, settings.max_seq_length
    return heaviest_step(question.lengths, length, rows, fused=fused)


def _correction(question: Question, measures: Sequence[Measure]) -> float:
    """What the prediction was off by, at most, where it was measured."""
    factors = [m.peak / predict(question.shape, m.settings, m.step).total for m in measures]
    return max(factors, default=1.0)


_ENTERS_A_STEP = (
    "batch_size",
    "gradient_checkpointing",
    "loss_chunk",
    "dequantize",
    "lora_rank",
    "lora_layers",
    "lora_targets",
    "fine_tune_type",
    "packing",
)


def _same_work(one: TrainingSettings, other: TrainingSettings) -> bool:
    """Both compute the same step: only what does not enter it may differ."""
    return all(getattr(one, name) == getattr(other, name) for name in _ENTERS_A_STEP)


def _cost(question: Question, settings: TrainingSettings) -> float:
    tokens, batches = padded_tokens(question.lengths, settings.max_seq_length, settings.batch_size)
    cost = float(tokens + _FIXED_TOKENS * batches)
    if settings.gradient_checkpointing:
        cost *= _CHECKPOINTING_COST
    if settings.loss_chunk:
        cost *= _CHUNKS_COST
    if question.quantized and question.device == "cpu" and not settings.dequantize:
        cost *= _CPU_QUANTIZED_COST
    return cost


def _frozen(question: Question, option: Option, measures: Sequence[Measure]) -> Plan:
    left_out = question.lengths.left_out(option.settings.max_seq_length)
    samples = question.samples - left_out
    steps_an_epoch = -(-samples // option.settings.effective_batch)
    total = steps_an_epoch * option.settings.num_epochs
    settings = dataclasses.replace(
        option.settings, warmup_steps=min(option.settings.warmup_steps, total // 10)
    )
    seconds = 0.0
    if option.tokens_per_second:
        length = settings.max_seq_length
        tokens, _ = padded_tokens(question.lengths, length, settings.batch_size)
        scale = question.lengths.scale * settings.num_epochs
        seconds = tokens * scale / option.tokens_per_second
    budget = question.budget
    return Plan(
        settings=settings,
        model_path=question.model_path,
        total_steps=total,
        length_bucket=LENGTH_BUCKET,
        memory_budget=budget.worker,
        memory_limit=budget.mlx,
        cache_limit=budget.cache,
        wired_limit=budget.wired,
        predicted_peak=_predicted(option, measures),
        measured_peak=option.peak if option.sureness == MEASURED else 0,
        tokens_per_second=option.tokens_per_second,
        expected_seconds=seconds,
        samples=samples,
        samples_cut=question.lengths.cut(settings.max_seq_length),
        samples_left_out=left_out,
        compiled_shapes=compiled_shapes(question.lengths, settings),
        reasons=_reasons(question, option, tier_for(question.available)),
    )


def _predicted(option: Option, measures: Sequence[Measure]) -> int:
    """The peak as it was thought to be before it was measured."""
    for m in measures:
        rehearsed = not m.tokens_per_second and m.step == option.step
        if rehearsed and _same_work(m.settings, option.settings):
            return m.peak
    return option.peak


def _reasons(question: Question, option: Option, tier: Tier) -> tuple[Finding, ...]:
    """Why these settings: the tier first, then each place where the plan left it."""
    settings, chosen = option.settings, question.spec.settings
    reasons = [Finding(tier.reason, args={"low": tier.low, "high": tier.high})]
    note = reasons.append
    if settings.effective_batch < tier.batch_size * tier.gradient_accumulation and not (
        {"batch_size", "gradient_accumulation"} & chosen.keys()
    ):
        args = {"samples": question.samples, "batch": settings.effective_batch}
        note(Finding("plan.tiny_data", args=args))
    if settings.max_seq_length != tier.max_seq_length and "max_seq_length" not in chosen:
        longest = question.lengths.longest
        code = "plan.length_of_data" if longest <= settings.max_seq_length else "plan.shortened"
        args = {"length": settings.max_seq_length, "longest": longest}
        note(Finding(code, args=args))
    if cut := question.lengths.cut(settings.max_seq_length):
        lost = question.lengths.left_out(settings.max_seq_length)
        args = {"count": cut, "lost": lost, "length": settings.max_seq_length}
        note(Finding("plan.cuts", Status.WARNING, args=args))
    if settings.gradient_checkpointing and "gradient_checkpointing" not in chosen:
        note(Finding("plan.checkpointing"))
    if settings.loss_chunk and "loss_chunk" not in chosen:
        note(Finding("plan.loss_chunk", args={"tokens": settings.loss_chunk}))
    if settings.dequantize and "dequantize" not in chosen:
        note(Finding("plan.dequantize"))
    margin = 1 - option.peak / question.budget.mlx
    code = "plan.measured" if option.sureness == MEASURED else "plan.predicted"
    note(Finding(code, args={"peak": option.peak, "margin": margin}))
    return tuple(reasons)

"""Turns the chosen option into the frozen plan, with the reasons that people read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import Plan
from safetrain_shared.settings import LENGTH_BUCKET, TrainingSettings
from safetraind.planner.batch_shapes import compiled_shapes, padded_tokens
from safetraind.planner.candidates import rows_an_epoch
from safetraind.planner.degree import Degree
from safetraind.planner.epochs import kind_of
from safetraind.planner.memory_estimate import gradient_bytes
from safetraind.planner.option import Option, Question
from safetraind.planner.pilot import reason
from safetraind.planner.tiers import tier_for
from safetraind.rank_speed import bytes_sent


def frozen(
    question: Question, option: Option, *, predicted: int, bucket: int, held_by_buffer: bool
) -> Plan:
    """Return the plan.

    `predicted`: the peak before it was measured, in bytes. `bucket`: sequences are padded to a
    multiple of it. `held_by_buffer`: a faster option failed only because one array exceeds the
    buffer limit.
    """
    settings = option.settings
    rows = rows_an_epoch(question, settings, bucket)
    steps_per_epoch = max(1, -(-rows // settings.effective_batch))
    total = settings.total_steps(steps_per_epoch)
    epoch = option.seconds * question.lengths.scale
    budget, left_out = question.budget, question.lengths.left_out(settings.max_seq_length)
    return Plan(
        settings=dataclasses.replace(settings, warmup_steps=settings.warmup_in(total)),
        model_path=question.model_path,
        total_steps=total,
        length_bucket=bucket,
        memory_budget=budget.worker,
        memory_limit=option.limit,
        cache_limit=budget.cache,
        wired_limit=budget.wired,
        predicted_peak=predicted,
        measured_peak=option.peak if option.degree is Degree.MEASURED else 0,
        tokens_per_second=_speed(question, option, bucket),
        expected_seconds=epoch * total / steps_per_epoch,
        samples=question.samples - left_out,
        samples_cut=question.lengths.cut(settings.max_seq_length),
        samples_left_out=left_out,
        compiled_shapes=compiled_shapes(question.lengths, settings, bucket, question.valid),
        heaviest_width=option.step.width,
        heaviest_share=option.step.learned / option.step.tokens,
        degree=option.degree.word,
        margin=option.degree.margin,
        reasons=(
            *_batch(question, option),
            *_rate(question),
            *_epochs(question, settings, total),
            *_lengths(question, option),
            *_savings(question, option),
            *_device(question, option, bucket, held_by_buffer=held_by_buffer),
            *_ranks(question, option),
            _peak(question, option, predicted, bucket),
        ),
    )


def _batch(question: Question, option: Option) -> Iterator[Finding]:
    """Yield the tier, and where the plan leaves its effective batch."""
    tier, settings = tier_for(question.available), option.settings
    yield Finding(tier.reason, args={"low": tier.low, "high": tier.high})
    chosen = {"batch_size", "gradient_accumulation"} & question.spec.settings.keys()
    usual = tier.batch_size * tier.gradient_accumulation
    if settings.effective_batch < usual and not chosen:
        args = {"samples": question.samples, "batch": settings.effective_batch}
        yield Finding("plan.tiny_data", args=args)
    elif settings.effective_batch != usual and len(chosen) == 1:
        args = {"batch": settings.effective_batch, "usual": usual}
        yield Finding("plan.other_batch", args=args)


def _rate(question: Question) -> Iterator[Finding]:
    """Yield the pilot's result, where one was asked for."""
    if question.pilot or question.pilot_failed:
        yield reason(question.pilot)


def _epochs(question: Question, settings: TrainingSettings, total: int) -> Iterator[Finding]:
    """Yield the reason for more epochs than usual."""
    if question.effective_batch or "num_epochs" in question.spec.settings:
        return
    if settings.num_epochs > question.spec.complete_settings.num_epochs:
        args = {"epochs": settings.num_epochs, "steps": total, "samples": question.samples}
        yield Finding(f"plan.epochs_{kind_of(question.lengths)}", args=args)


def _lengths(question: Question, option: Option) -> Iterator[Finding]:
    """Yield the sequence length, and what it cuts of both files."""
    tier, length = tier_for(question.available), option.settings.max_seq_length
    if length != tier.max_seq_length and "max_seq_length" not in question.spec.settings:
        longest = question.lengths.longest
        code = "plan.length_of_data" if longest <= length else "plan.shortened"
        yield Finding(code, args={"length": length, "longest": longest})
    if cut := question.lengths.cut(length):
        args = {"count": cut, "lost": question.lengths.left_out(length), "length": length}
        yield Finding("plan.cuts", Status.WARNING, args=args)
    else:
        yield Finding("plan.no_cuts", args={"length": length})
    if question.valid and (cut := question.valid.cut(length)):
        args = {"count": cut, "length": length}
        yield Finding("plan.cuts_valid", Status.WARNING, args=args)


def _savings(question: Question, option: Option) -> Iterator[Finding]:
    """Yield the settings that save memory or time, where the planner chose them."""
    settings, chosen = option.settings, question.spec.settings
    for name in sorted(question.unsupported):
        status = Status.WARNING if chosen.get(name) else Status.INFO
        yield Finding(f"plan.without_{name}", status)
    if settings.gradient_checkpointing and "gradient_checkpointing" not in chosen:
        yield Finding("plan.checkpointing")
    if settings.loss_chunk and "loss_chunk" not in chosen:
        yield Finding("plan.loss_chunk", args={"tokens": settings.loss_chunk})
    if settings.dequantize and "dequantize" not in chosen:
        yield Finding("plan.dequantize")


def _device(
    question: Question, option: Option, bucket: int, *, held_by_buffer: bool
) -> Iterator[Finding]:
    """Yield the reason where a limit of the device decided."""
    if held_by_buffer:
        args = {"largest": option.largest, "buffer": question.largest_buffer}
        yield Finding("plan.largest_buffer", args=args)
    if bucket > LENGTH_BUCKET:
        shapes = compiled_shapes(question.lengths, option.settings, bucket, question.valid)
        args = {"bucket": bucket, "shapes": shapes, "resources": question.resources}
        yield Finding("plan.fewer_shapes", args=args)


def _ranks(question: Question, option: Option) -> Iterator[Finding]:
    """Yield what several ranks on one machine take, and what they send."""
    budget = question.budget
    if budget.ranks > 1:
        each = option.peak + budget.worker - budget.mlx
        sent = bytes_sent(gradient_bytes(question.shape, option.settings), budget.ranks)
        args = {"ranks": budget.ranks, "memory": budget.ranks * each, "sent": round(sent)}
        yield Finding("plan.ranks", args=args)


def _speed(question: Question, option: Option, bucket: int) -> float:
    """Return the tokens a second, padding included; 0 where nothing was run."""
    tokens, _ = padded_tokens(question.lengths, option.settings, bucket)
    known = option.seconds and option.degree is not Degree.ESTIMATED
    return tokens / option.seconds if known else 0.0


def _peak(question: Question, option: Option, predicted: int, bucket: int) -> Finding:
    """Return the source of the predicted peak, its margin, and the share of the budget that it
    leaves free.
    """
    peak = option.peak if option.degree is Degree.MEASURED else predicted
    args: dict[str, int | float] = {
        "peak": peak,
        "margin": option.degree.margin,
        "free": max(0.0, 1 - peak / question.budget.mlx),
    }
    if option.degree is Degree.MEASURED:
        args["predicted"] = predicted
    if option.degree is not Degree.ESTIMATED:
        args["speed"] = _speed(question, option, bucket)
    return Finding(f"plan.{option.degree.word}", args=args)

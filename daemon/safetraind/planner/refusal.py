"""Refuses a job that does not fit, and finds the smallest change with which it would."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from safetrain_shared.findings import Finding, Status
from safetrain_shared.settings import TrainingSettings
from safetraind.models.model_config import ModelShape
from safetraind.planner.budget import Budget
from safetraind.planner.degree import Degree
from safetraind.planner.memory_estimate import predict
from safetraind.planner.option import Option, Question

_LENGTHS = (2048, 1024, 512, 256, 128, 64)

Change = Callable[[Option, int], Option]


def refuse(question: Question, least: Option, correction: float) -> Finding:
    """Return the blocking finding: the least memory needed, the memory available, and the changes
    that would fit.

    The changes are tried from the one that costs least: fewer ranks on this machine, a smaller
    micro-batch than the chosen one, then fewer LoRA layers, then a shorter sequence, then both.
    Where even that is too much, the size of a model that fits is named. Predictions are corrected
    by `correction`, or by the error of the option that needs the least memory.
    """
    if 0 < question.largest_buffer < least.largest:
        args = {"needed": least.largest, "room": question.largest_buffer}
        return _finding("plan.refused_buffer", args)
    if refusal := _too_many_ranks(question.budget, least):
        return refusal
    fits = _judge(question, least, correction)
    room = question.budget.room(least.degree)
    args = {"needed": least.peak, "room": room, "budget": question.budget.worker}
    if rows := _first(_smaller(least.step.rows), least, _of_rows, fits):
        return _finding("plan.refused_batch", args | {"rows": rows})
    fewer = range(_layers(question.shape, least.settings) - 1, 0, -1)
    if layers := _first(fewer, least, _on, fits):
        return _finding("plan.refused_layers", args | {"layers": layers})
    shorter = [n for n in _LENGTHS if n < least.step.width]
    if length := _first(shorter, least, _cut, fits):
        return _finding("plan.refused_length", args | {"length": length})
    if length := _first(shorter, _on(least, 1), _cut, fits):
        return _finding("plan.refused_both", args | {"layers": 1, "length": length})
    return _finding("plan.refused_model", args | {"weights": question.shape.weight_bytes})


def _too_many_ranks(budget: Budget, least: Option) -> Finding | None:
    """Return the finding where fewer ranks would fit on this machine, at least one."""
    fewer = budget.most_ranks(least.peak, least.degree)
    if budget.ranks == 1 or not fewer:
        return None
    each = least.peak + budget.worker - budget.mlx
    args = {"each": each, "needed": budget.ranks * each, "room": budget.whole}
    return _finding("plan.refused_ranks", {"ranks": budget.ranks, "fewer": fewer, **args})


def _judge(question: Question, least: Option, correction: float) -> Callable[[Option], bool]:
    """Return a function that predicts whether a changed option would fit, calibrated on the
    smallest one.
    """
    room = question.budget.room(Degree.ESTIMATED)
    factor = predict(question.runtime, least.settings, least.step).off_by(least.peak)
    factor = max(correction, factor)

    def fits(option: Option) -> bool:
        peak = predict(question.runtime, option.settings, option.step)
        return peak.corrected(factor) <= room

    return fits


def _first(
    values: Sequence[int], option: Option, change: Change, fits: Callable[[Option], bool]
) -> int:
    """Return the first of `values` with which it fits; 0 where none does."""
    return next((value for value in values if fits(change(option, value))), 0)


def _smaller(rows: int) -> list[int]:
    """Return the powers of two below `rows`, the largest first."""
    return [1 << n for n in range(rows.bit_length() - 1, -1, -1) if 1 << n < rows]


def _of_rows(option: Option, rows: int) -> Option:
    settings = dataclasses.replace(option.settings, batch_size=rows)
    step = option.step
    learned = min(step.learned, rows * step.width)
    valid_learned = min(step.valid_learned, rows * step.valid_width)
    step = dataclasses.replace(step, rows=rows, learned=learned, valid_learned=valid_learned)
    return dataclasses.replace(option, settings=settings, step=step)


def _on(option: Option, layers: int) -> Option:
    settings = dataclasses.replace(option.settings, lora_layers=layers)
    return dataclasses.replace(option, settings=settings)


def _cut(option: Option, length: int) -> Option:
    rows, step = option.step.rows, option.step
    width, learned = min(step.valid_width, length), min(step.valid_learned, rows * length)
    cut = dataclasses.replace(
        step, width=length, learned=rows * length, valid_width=width, valid_learned=learned
    )
    return dataclasses.replace(option, step=cut)


def _layers(shape: ModelShape, settings: TrainingSettings) -> int:
    return min(settings.lora_layers or shape.layers, shape.layers)


def _finding(code: str, args: dict[str, int]) -> Finding:
    return Finding(code, Status.FAILED, blocks=True, args=args, section="recommendation")

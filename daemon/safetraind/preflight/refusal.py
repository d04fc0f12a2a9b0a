"""Says no where nothing fits, with the smallest change that would, in numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from safetrain_shared.findings import Finding, Status
from safetrain_shared.settings import TrainingSettings
from safetraind.preflight.budget import Budget
from safetraind.preflight.memory import predict
from safetraind.preflight.model_folder import ModelShape
from safetraind.preflight.option import Option

_LENGTHS = (2048, 1024, 512, 256, 128, 64)


def refuse(shape: ModelShape, budget: Budget, least: Option) -> Finding:
    """The blocking finding: what the leanest way would take, what there is, and what would fit.

    The changes are tried from the one that costs least: fewer LoRA layers, then a shorter sequence,
    then both; where even that is too much, how large a model may be.
    """
    room = budget.room(measured=False)
    args: dict[str, int] = {"needed": least.peak, "room": room, "budget": budget.worker}
    layers = _largest(range(_layers(shape, least.settings) - 1, 0, -1), room, shape, least, _on)
    if layers:
        return _finding("plan.refused_layers", args | {"layers": layers})
    shorter = [n for n in _LENGTHS if n < least.step.width]
    length = _largest(shorter, room, shape, least, _cut)
    if length:
        return _finding("plan.refused_length", args | {"length": length})
    single = dataclasses.replace(least, settings=_on(least, 1).settings)
    length = _largest(shorter, room, shape, single, _cut)
    if length:
        return _finding("plan.refused_both", args | {"layers": 1, "length": length})
    return _finding("plan.refused_model", args | {"weights": shape.weight_bytes})


def _largest(
    values: range | list[int],
    room: int,
    shape: ModelShape,
    least: Option,
    change: Callable[[Option, int], Option],
) -> int:
    """The first of `values` with which it fits; 0 where none does."""
    for value in values:
        option = change(least, value)
        if predict(shape, option.settings, option.step).total <= room:
            return value
    return 0


def _on(option: Option, layers: int) -> Option:
    settings = dataclasses.replace(option.settings, lora_layers=layers)
    return dataclasses.replace(option, settings=settings)


def _cut(option: Option, length: int) -> Option:
    rows = option.step.rows
    step = dataclasses.replace(option.step, width=length, learned=rows * length)
    return dataclasses.replace(option, step=step)


def _layers(shape: ModelShape, settings: TrainingSettings) -> int:
    return min(settings.lora_layers or shape.layers, shape.layers)


def _finding(code: str, args: dict[str, int]) -> Finding:
    return Finding(code, Status.FAILED, blocks=True, args=args, section="recommendation")

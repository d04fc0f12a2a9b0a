"""Whether two settings compute a micro-batch in the same way, and the measures that they share."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from safetrain_shared.settings import TrainingSettings
from safetraind.worker_messages.probe_messages import Measure, Step

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


def way(settings: TrainingSettings) -> Hashable:
    """Return what is equal where a micro-batch is computed in the same way, whatever its shape."""
    return tuple(getattr(settings, name) for name in _ENTERS_A_STEP)


def same_way(one: TrainingSettings, other: TrainingSettings) -> bool:
    """Return whether both compute a micro-batch in the same way, whatever its shape."""
    return way(one) == way(other)


def same_work(one: TrainingSettings, other: TrainingSettings) -> bool:
    """Return whether both compute the same step, apart from its shape."""
    return accumulates(one) == accumulates(other) and same_way(one, other)


def same_adapter(one: TrainingSettings, other: TrainingSettings) -> bool:
    """Return whether both train the same parameters."""
    names = ("lora_rank", "lora_layers", "lora_targets", "fine_tune_type")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def accumulates(settings: TrainingSettings) -> bool:
    """Return whether gradients of several micro-batches are added up, which needs a second copy of
    them.
    """
    return settings.gradient_accumulation > 1


def of_setup(measures: Sequence[Measure], settings: TrainingSettings, step: Step) -> list[Measure]:
    """Return the measures of exactly this setup, in their order."""
    return [m for m in measures if m.step == step and same_work(m.settings, settings)]

"""The training settings: name, range, default and meaning of each, in one table.

The table serves the planner, the trainer, `submit --set`, `explain` and the documents, so that a
setting means the same everywhere. Counts of steps are optimizer steps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safetrain_shared.errors import InvalidSetting

SettingValue = bool | int | float | str | tuple[str, ...]

# Sequences are padded to a multiple of it: 94 of 100 tokens are then real, with few shapes.
LENGTH_BUCKET = 16
# Predictions a chunk, where the loss is computed in chunks: their logits weigh little.
LOSS_CHUNK = 128
# A segment of a training overnight: a process and a GPU that start afresh once in a while.
SEGMENT_MINUTES = 45.0


def _setting(
    default: SettingValue,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of `TrainingSettings` with its range (bounds included)."""
    return field(default=default, metadata={"low": low, "high": high, "choices": choices})


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """All that decides a training, complete.

    The defaults stand where neither the user nor the planner says otherwise. What each one means
    is in `messages.settings`.
    """

    batch_size: int = _setting(4, low=1, high=4096)
    gradient_accumulation: int = _setting(1, low=1, high=4096)
    max_seq_length: int = _setting(512, low=8, high=1_048_576)
    learning_rate: float = _setting(2e-4, low=0.0, high=1.0)
    num_epochs: int = _setting(3, low=1, high=10_000)
    max_steps: int = _setting(0, low=0, high=10_000_000)
    warmup_steps: int = _setting(50, low=0, high=10_000_000)
    save_steps: int = _setting(100, low=1, high=10_000_000)
    eval_steps: int = _setting(100, low=1, high=10_000_000)
    log_steps: int = _setting(10, low=1, high=1_000_000)
    seed: int = _setting(0, low=0, high=2**63 - 1)
    schedule: str = _setting("cosine", choices=("constant", "linear", "cosine"))
    weight_decay: float = _setting(0.0, low=0.0, high=10.0)
    max_grad_norm: float = _setting(1.0, low=0.0, high=1e9)
    fine_tune_type: str = _setting("lora", choices=("lora", "dora"))
    lora_rank: int = _setting(8, low=1, high=4096)
    lora_scale: float = _setting(20.0, low=0.0, high=10_000.0)
    lora_dropout: float = _setting(0.0, low=0.0, high=0.99)
    lora_layers: int = _setting(16, low=0, high=10_000)
    lora_targets: tuple[str, ...] = _setting(())
    mask_prompt: bool = _setting(True)
    packing: bool = _setting(False)
    gradient_checkpointing: bool = _setting(False)
    loss_chunk: int = _setting(0, low=0, high=1_048_576)
    dequantize: bool = _setting(False)
    keep_checkpoints: int = _setting(3, low=1, high=10_000)
    early_stopping: int = _setting(0, low=0, high=10_000)
    eval_samples: int = _setting(0, low=0, high=10_000_000)
    memory_high: float = _setting(0.95, low=0.1, high=1.0)
    calm_seconds: int = _setting(5, low=0, high=3600)
    hold_seconds: int = _setting(60, low=0, high=86_400)
    ignore_pressure: bool = _setting(False)
    segment_minutes: float = _setting(0.0, low=0.0, high=10_080.0)
    rest_minutes: float = _setting(5.0, low=0.0, high=1_440.0)
    pilot_minutes: float = _setting(0.0, low=0.0, high=1_440.0)
    thinking: str = _setting("given", choices=("given", "keep", "drop"))
    ranks: int = _setting(1, low=1, high=16)
    machines: tuple[str, ...] = _setting(())
    fewer_machines: bool = _setting(False)

    @property
    def effective_batch(self) -> int:
        """Samples an optimizer step sees."""
        return self.batch_size * self.gradient_accumulation

    @property
    def all_ranks(self) -> int:
        """Processes that divide each optimizer step: here, and one on each other machine."""
        return self.ranks + len(self.machines)

    def rest_seconds(self, training: float) -> float:
        """Seconds of rest within `training` seconds of training from the start of a segment."""
        length = 60 * self.segment_minutes
        return 60 * self.rest_minutes * max(0, math.ceil(training / length) - 1) if length else 0.0

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole run: as many as set, else those of the epochs."""
        return self.max_steps or self.num_epochs * steps_per_epoch

    def warmup_in(self, total_steps: int) -> int:
        """Optimizer steps of warm-up in a run of `total_steps`: as set, at most a tenth of them."""
        return min(self.warmup_steps, total_steps // 10)

    def with_overrides(self, overrides: Mapping[str, SettingValue]) -> TrainingSettings:
        """These settings with some replaced; the values must have passed `checked`."""
        return dataclasses.replace(self, **overrides)  # type: ignore[arg-type]


FIELDS: dict[str, dataclasses.Field[Any]] = {
    f.name: f for f in dataclasses.fields(TrainingSettings)
}
TYPES: dict[str, type] = {name: type(f.default) for name, f in FIELDS.items()}
# What the planner chooses for machine, model and data where the user does not.
PLANNED = frozenset(
    {
        "batch_size",
        "gradient_accumulation",
        "max_seq_length",
        "learning_rate",
        "num_epochs",
        "early_stopping",
        "gradient_checkpointing",
        "loss_chunk",
        "dequantize",
    }
)


def checked(name: str, value: object) -> SettingValue:
    """Return `value` in the type of setting `name`.

    Raises InvalidSetting for a name that does not exist, another type, or a value out of range.
    Whole floats pass for integers and integers for floats, as JSON and YAML mix them.
    """
    if name not in FIELDS:
        raise unknown_setting(name)
    metadata = FIELDS[name].metadata
    converted = _converted(name, value)
    if metadata["choices"] and converted not in metadata["choices"]:
        choices = ", ".join(metadata["choices"])
        raise InvalidSetting("setting.choice", name=name, value=str(value), choices=choices)
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        _check_range(name, converted, metadata["low"], metadata["high"])
    return converted


def unknown_setting(name: str) -> InvalidSetting:
    """The error for a name that is no setting, with the nearest one named where there is one."""
    import difflib  # only for who mistyped

    near = difflib.get_close_matches(name, FIELDS, n=1)
    if near:
        return InvalidSetting("setting.unknown_near", name=name, near=near[0])
    return InvalidSetting("setting.unknown", name=name, known=", ".join(sorted(FIELDS)))


def parse(name: str, text: str) -> SettingValue:
    """The setting `name` from its written form, as in `--set learning_rate=2e-4`.

    A decimal comma is read as well, for that is how Portuguese sheets show 0,0002. Raises
    InvalidSetting as `checked` does.
    """
    kind = TYPES.get(name)
    if kind is bool:
        words = {"true": True, "on": True, "yes": True, "1": True, "sim": True}
        words |= {"false": False, "off": False, "no": False, "0": False, "não": False}
        return checked(name, words.get(text.strip().lower(), text))
    if kind is tuple:
        return checked(name, [part.strip() for part in text.split(",") if part.strip()])
    if kind in (int, float):
        try:
            return checked(name, float(text.replace(",", ".")) if kind is float else _whole(text))
        except ValueError:
            pass
    return checked(name, text)


def _whole(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _converted(name: str, value: object) -> SettingValue:
    kind = TYPES[name]
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str):
        return value
    if kind is tuple and isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        if kind is float:
            return float(value)
        if kind is int and value == int(value):
            return int(value)
    raise InvalidSetting("setting.type", name=name, value=str(value), kind=kind.__name__)


def _check_range(name: str, value: float, low: float | None, high: float | None) -> None:
    if (low is not None and value < low) or (high is not None and value > high):
        raise InvalidSetting("setting.range", name=name, value=value, low=low, high=high)

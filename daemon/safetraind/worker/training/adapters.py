"""The adapter: LoRA or DoRA layers on a frozen model, and on the disk in mlx-lm's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from safetrain_shared.errors import InvalidSetting
from safetrain_shared.settings import TrainingSettings
from safetraind.worker.training.adapter_layers import compute_in_input_dtype

WEIGHTS = "adapters.safetensors"
CONFIG = "adapter_config.json"


class DropoutKeys:
    """The random keys of one pass through the model, one for each dropout; None: no pass now."""

    def __init__(self) -> None:
        self.rows: mx.array | None = None


class KeyedDropout(nn.Module):
    """Dropout whose mask follows from a key that is handed in, not from a state that moves on.

    The same pass computed again, as gradient checkpointing does on the way back, draws the same
    mask; and nothing else that draws random numbers can change it.
    """

    def __init__(self, share: float, keys: DropoutKeys, row: int) -> None:
        super().__init__()
        self._share, self._keys, self._row = share, keys, row

    def __call__(self, x: mx.array) -> mx.array:
        """Zeroes a random share of `x` and scales up the rest; `x` itself outside training."""
        if not self.training or self._keys.rows is None:
            return x
        kept = mx.random.bernoulli(1 - self._share, x.shape, self._keys.rows[self._row])
        return (kept * x) * (1 / (1 - self._share))


def attach(model: nn.Module, settings: TrainingSettings, seed: int) -> DropoutKeys:
    """Freezes `model` and puts new LoRA or DoRA layers on it, whose weights follow from `seed`.

    Returns the holder of their dropout keys. Raises InvalidSetting where no layer is met.
    """
    mx.random.seed(seed)
    model.freeze()
    linear_to_lora_layers(
        model,
        _layers(model, settings),
        _lora_parameters(settings),
        use_dora=settings.fine_tune_type == "dora",
    )
    compute_in_input_dtype(model)
    if not tree_flatten(model.trainable_parameters()):
        targets = ", ".join(settings.lora_targets)
        raise InvalidSetting("train.no_targets", targets=targets)
    return _key_dropout(model, settings.lora_dropout)


def dropouts(model: nn.Module) -> int:
    """How many keys a pass through the model needs."""
    return sum(isinstance(m, KeyedDropout) for m in model.modules())


def weights(model: nn.Module) -> dict[str, mx.array]:
    """The adapter's weights by name, as mlx-lm names them."""
    return dict(tree_flatten(model.trainable_parameters()))


def put(model: nn.Module, values: dict[str, mx.array]) -> None:
    """Sets the adapter's weights. Raises ValueError where names or shapes are not its own."""
    own = weights(model)
    if {n: w.shape for n, w in own.items()} != {n: w.shape for n, w in values.items()}:
        raise ValueError("the adapter belongs to another model or other settings")
    model.load_weights(list(values.items()), strict=False)


def write_config(folder: Path, model: nn.Module, settings: TrainingSettings, base: str) -> None:
    """Writes adapter_config.json, from which `mlx_lm.generate --adapter-path` builds the layers."""
    config: dict[str, Any] = {
        "fine_tune_type": settings.fine_tune_type,
        "num_layers": _layers(model, settings),
        "lora_parameters": _lora_parameters(settings),
        "model": base,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _layers(model: nn.Module, settings: TrainingSettings) -> int:
    return min(settings.lora_layers or len(model.layers), len(model.layers))


def _lora_parameters(settings: TrainingSettings) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "rank": settings.lora_rank,
        "scale": settings.lora_scale,
        "dropout": settings.lora_dropout,
    }
    if settings.lora_targets:
        parameters["keys"] = list(settings.lora_targets)
    return parameters


def _key_dropout(model: nn.Module, share: float) -> DropoutKeys:
    keys = DropoutKeys()
    if share:
        layers = [m for m in model.modules() if "lora_a" in m]
        for row, layer in enumerate(layers):
            layer.dropout = KeyedDropout(share, keys, row)
    return keys

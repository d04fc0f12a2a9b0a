"""The adapter: LoRA or DoRA layers on a frozen model, and on the disk in mlx-lm's format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.utils import linear_to_lora_layers

from safetrain_shared.errors import InvalidInput, InvalidSetting, NotFound
from safetrain_shared.settings import TrainingSettings
from safetraind.worker.training.adapter_layers import compute_in_input_dtype

_EXPERTS = (SwitchLinear, QuantizedSwitchLinear)
_PLAIN = (nn.Linear, nn.QuantizedLinear, nn.Embedding, nn.QuantizedEmbedding)
# Layers whose weight mlx-lm 0.32's architectures read or set instead of calling the layer: no
# adapter can stand in their place.
_READ_DIRECTLY = {
    "mlx_lm.models.gemma3n": ("altup.prediction_coefs", "altup.correction_coefs"),
    "mlx_lm.models.kimi_k3": ("self_attention_res_proj", "mlp_res_proj"),
    "mlx_lm.models.muse_spark": ("gate",),
}
WEIGHTS = "adapters.safetensors"
CONFIG = "adapter_config.json"


class DropoutKeys:
    """The random keys of one pass through the model, one for each dropout; None: no pass now."""

    def __init__(self) -> None:
        self.rows: mx.array | None = None


class KeyedDropout(nn.Module):
    """Dropout whose mask follows from a given key, not from a random state that advances.

    The recomputation of a pass, as in gradient checkpointing, draws the same mask. No other user of
    random numbers can change it.
    """

    def __init__(self, share: float, keys: DropoutKeys, row: int) -> None:
        super().__init__()
        self._share, self._keys, self._row = share, keys, row

    def __call__(self, x: mx.array) -> mx.array:
        """Zero a random share of `x` and scale up the rest; `x` itself outside training."""
        if not self.training or self._keys.rows is None:
            return x
        kept = mx.random.bernoulli(1 - self._share, x.shape, self._keys.rows[self._row])
        return (kept * x) * (1 / (1 - self._share))


def attach(model: nn.Module, settings: TrainingSettings, seed: int) -> DropoutKeys:
    """Freeze `model` and put new LoRA or DoRA layers on it, whose weights follow from `seed`.

    Return the holder of their dropout keys. Raises InvalidSetting where no layer is met, or one
    that takes no such layer.
    """
    mx.random.seed(seed)
    if not hasattr(model, "_no_grad"):  # mlx-lm 0.32's recurrent_gemma leaves it out
        nn.Module.__init__(model)
    model.freeze()
    dora, parameters = settings.fine_tune_type == "dora", _lora_parameters(model, settings)
    if dora and any(isinstance(layer, _EXPERTS) for layer in _chosen(model, parameters)):
        raise InvalidSetting("train.dora_experts")
    try:
        linear_to_lora_layers(model, _layers(model, settings), parameters, use_dora=dora)
    except (TypeError, ValueError) as error:
        raise InvalidSetting("train.no_adapter", reason=str(error)) from error
    _check_targets(model, settings)
    compute_in_input_dtype(model)
    if not tree_flatten(model.trainable_parameters()):
        kinds = {
            type(m).__name__ for layer in model.layers for m in layer.modules() if "weight" in m
        }
        raise InvalidSetting("train.no_adapter", reason=", ".join(sorted(kinds)))
    return _key_dropout(model, settings.lora_dropout)


def _check_targets(model: nn.Module, settings: TrainingSettings) -> None:
    """Raise InvalidSetting naming the targets that got no adapter."""
    adapted = [name for name, module in model.named_modules() if "lora_a" in module]
    targets = settings.lora_targets
    missing = [t for t in targets if not any(f".{name}".endswith(f".{t}") for name in adapted)]
    if missing:
        raise InvalidSetting("train.no_targets", targets=", ".join(missing))


def dropouts(model: nn.Module) -> int:
    """Return the number of random keys that a pass through the model needs, one for each dropout
    layer.
    """
    return sum(isinstance(m, KeyedDropout) for m in model.modules())


def weights(model: nn.Module) -> dict[str, mx.array]:
    """Return the adapter's weights by mlx-lm's names: `lora_a` (inputs, rank), `lora_b` (rank,
    outputs), for DoRA also `m` (outputs,).
    """
    return dict(tree_flatten(model.trainable_parameters()))


def put(model: nn.Module, values: dict[str, mx.array]) -> None:
    """Set the adapter's weights. Raises ValueError where names or shapes are not its own."""
    own = weights(model)
    if {n: w.shape for n, w in own.items()} != {n: w.shape for n, w in values.items()}:
        raise ValueError("the adapter belongs to another model or other settings")
    model.load_weights(list(values.items()), strict=False)


def start_from(model: nn.Module, file: Path) -> None:
    """Set the adapter's weights to those in `file`, as mlx-lm's `resume_adapter_file` does.

    Raises NotFound without the file, InvalidInput where it belongs to another adapter.
    """
    if not file.is_file():
        raise NotFound("path.missing", path=str(file))
    try:
        found: Any = mx.load(str(file))
        put(model, dict(found))
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InvalidInput("train.other_adapter", path=str(file), reason=reason) from error


def write_config(folder: Path, model: nn.Module, settings: TrainingSettings, base: str) -> None:
    """Write adapter_config.json, from which `mlx_lm.generate --adapter-path` builds the layers."""
    config: dict[str, Any] = {
        "fine_tune_type": settings.fine_tune_type,
        "num_layers": _layers(model, settings),
        "lora_parameters": _lora_parameters(model, settings),
        "model": base,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _layers(model: nn.Module, settings: TrainingSettings) -> int:
    return min(settings.lora_layers or len(model.layers), len(model.layers))


def _lora_parameters(model: nn.Module, settings: TrainingSettings) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "rank": settings.lora_rank,
        "scale": settings.lora_scale,
        "dropout": settings.lora_dropout,
    }
    if settings.lora_targets:
        parameters["keys"] = list(settings.lora_targets)
    elif (left_out := _READ_DIRECTLY.get(type(model).__module__)) is not None:
        names = {n for layer in model.layers for n, m in layer.named_modules() if _takes_lora(m)}
        parameters["keys"] = sorted(n for n in names if not n.endswith(left_out))
    return parameters


def _takes_lora(layer: nn.Module) -> bool:
    """Return whether mlx-lm's `linear_to_lora_layers` takes a layer when it is given no names."""
    return hasattr(layer, "to_lora") or isinstance(layer, (*_EXPERTS, *_PLAIN))


def _chosen(model: nn.Module, parameters: dict[str, Any]) -> Iterator[nn.Module]:
    """Yield the layers that get an adapter."""
    keys = parameters.get("keys")
    for layer in model.layers:
        for name, module in layer.named_modules():
            if name in keys if keys is not None else _takes_lora(module):
                yield module


def _key_dropout(model: nn.Module, share: float) -> DropoutKeys:
    keys = DropoutKeys()
    if share:
        layers = [m for m in model.modules() if "lora_a" in m]
        for row, layer in enumerate(layers):
            layer.dropout = KeyedDropout(share, keys, row)
    return keys

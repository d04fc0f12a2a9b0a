"""What config.json tells of a model before its weights are loaded: lost keys, names of layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.utils import _get_classes, load_config

from safetraind.worker import config_keys

_ADAPTABLE = (
    nn.Linear,
    nn.QuantizedLinear,
    SwitchLinear,
    QuantizedSwitchLinear,
    nn.Embedding,
    nn.QuantizedEmbedding,
)


def read_model(folder: Path, targets: Sequence[str]) -> dict[str, Any]:
    """`lost`: keys of the configuration that mlx-lm drops and that change the model; `dropped`: the
    other keys that it drops, as far as they are not known to be bookkeeping; `missing`: targets
    that are no layers of it; `known`: names that are. Raises whatever mlx-lm raises.

    Without targets no model is built. Its arrays are never computed.
    """
    config = load_config(folder)
    reading = config_keys.read(config)
    result: dict[str, Any] = {"lost": list(reading.lost), "dropped": list(reading.dropped)}
    result |= {"missing": [], "known": []}
    if targets and "model_file" not in config:
        kind, arguments = _get_classes(config)
        names = layer_names(kind(arguments.from_dict({**config, **reading.overrides})))
        result["missing"] = [name for name in targets if name not in names]
        inside = {name for name in names if not name.startswith(("model.", "lm_head"))}
        result["known"] = sorted(inside or names)[:8]
    return result


def layer_names(model: nn.Module) -> set[str]:
    """The names, inside a layer or in the whole model, of what can take an adapter."""
    places = [model, *model.layers]
    return {
        name
        for place in places
        for name, module in place.named_modules()
        if name and (isinstance(module, _ADAPTABLE) or hasattr(module, "to_lora"))
    }

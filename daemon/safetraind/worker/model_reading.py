"""The facts in config.json about a model whose weights are not loaded: lost keys, names of
layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlx.nn as nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.utils import _get_classes, load_config

from safetraind.worker import config_keys
from safetraind.worker_messages.inspect_messages import ModelReading

_ADAPTABLE = (
    nn.Linear,
    nn.QuantizedLinear,
    SwitchLinear,
    QuantizedSwitchLinear,
    nn.Embedding,
    nn.QuantizedEmbedding,
)


def read_model(folder: Path, targets: Sequence[str]) -> ModelReading:
    """Return the reading of config.json and of `targets`. Raises whatever mlx-lm raises.

    Without targets no model is built. Its arrays are never computed.
    """
    config = load_config(folder)
    reading = config_keys.read(config)
    lost, dropped = tuple(reading.lost), tuple(reading.dropped)
    if not targets or "model_file" in config:
        return ModelReading(lost, dropped)
    kind, arguments = _get_classes(config)
    names = layer_names(kind(arguments.from_dict({**config, **reading.overrides})))
    missing = tuple(name for name in targets if name not in names)
    inside = {name for name in names if not name.startswith(("model.", "lm_head"))}
    return ModelReading(lost, dropped, missing, tuple(sorted(inside or names)[:8]))


def layer_names(model: nn.Module) -> set[str]:
    """Return the names, inside a layer or in the whole model, of modules that can take an
    adapter.
    """
    places = [model, *model.layers]
    return {
        name
        for place in places
        for name, module in place.named_modules()
        if name and (isinstance(module, _ADAPTABLE) or hasattr(module, "to_lora"))
    }

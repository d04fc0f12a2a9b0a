"""A tiny random model of an architecture, as a folder that mlx-lm loads."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from benchmarks.architectures.tiny_configs import VOCABULARY, config
from tests.tiny import make_tokenizer

_NOISE = 0.02  # on every weight: what begins at zero would hide mistakes


def make(name: str, folder: Path) -> Path:
    """Writes a model of the architecture `name` into `folder`.

    Raises whatever the architecture's own code raises where it cannot be made.
    """
    own = config(name)
    module: Any = importlib.import_module(f"mlx_lm.models.{name}")
    mx.random.seed(0)
    model: nn.Module = module.Model(module.ModelArgs.from_dict(json.loads(json.dumps(own))))
    weights = {
        name: _noisy(value) if mx.issubdtype(value.dtype, mx.floating) else value
        for name, value in dict(tree_flatten(model.parameters())).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(own | ids), encoding="utf-8")
    make_tokenizer(folder, own.get("vocab_size", VOCABULARY))
    return folder


def make_bare(name: str, folder: Path) -> Path:
    """Writes a folder that names the architecture, for one that makes no model here."""
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), {"weight": mx.zeros(1)})
    (folder / "config.json").write_text(json.dumps({"model_type": name}), encoding="utf-8")
    return folder


def _noisy(weight: mx.array) -> mx.array:
    noise = _NOISE * mx.random.normal(weight.shape)
    return weight.astype(mx.float32) + noise

"""A tiny model, an adapter that changes it a lot, and an export of the two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from safetrain_shared.settings import TrainingSettings
from safetraind.worker.export.export import export
from safetraind.worker.loading import load
from safetraind.worker.training import adapters
from safetraind.worker_messages.export_messages import Exported, ExportRequest
from tests.tiny import make_chat_data, make_tiny_model

Run = Callable[..., Exported]


def make_adapter(folder: Path, model: Path, **settings: Any) -> Path:
    """An adapter whose effect is as large as a short training's: its weights are drawn."""
    chosen = TrainingSettings(lora_rank=4, **settings)
    loaded = load(str(model), dequantize=False)
    adapters.attach(loaded.model, chosen, seed=1)
    weights = dict(tree_flatten(loaded.model.trainable_parameters()))
    for number, (name, weight) in enumerate(sorted(weights.items())):
        if name.endswith("lora_b"):
            key = mx.random.key(number)
            weights[name] = mx.random.normal(weight.shape, scale=0.02, key=key)
    folder.mkdir(parents=True)
    mx.save_safetensors(str(folder / adapters.WEIGHTS), weights)
    adapters.write_config(folder, loaded.model, chosen, str(model))
    return folder


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "quantized", quantized=True)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "plain")


@pytest.fixture(scope="session")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_data(tmp_path_factory.mktemp("data"))[1]


@pytest.fixture
def run(tmp_path: Path, valid: Path) -> Run:
    """`run(model, adapter={...}, gguf=True)` exports to `tmp_path/out` and returns the result."""

    def call(model: Path, *, adapter: dict[str, Any] | None = None, **request: Any) -> Exported:
        made = make_adapter(tmp_path / "adapter", model, **(adapter or {}))
        asked = ExportRequest(
            **{
                "model": str(model),
                "adapter": str(made),
                "output": str(tmp_path / "out"),
                "valid": str(valid),
                **request,
            }
        )
        return export(asked, lambda _line: None)

    return call

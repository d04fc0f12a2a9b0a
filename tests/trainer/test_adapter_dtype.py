"""Adapters computed in a 16-bit model's own type: as good a training, with less to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from safetrain_shared.settings import TrainingSettings
from safetraind.worker.loading import load
from safetraind.worker.probe.steps import made_up
from safetraind.worker.training import adapters
from safetraind.worker.training.step import Stepper
from tests.peaks import peak
from tests.tiny import make_tiny_model

STEPS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in bfloat16."""
    folder = make_tiny_model(tmp_path_factory.mktemp("model"), layers=1, hidden=64)
    weights = {
        k: v.astype(mx.bfloat16) for k, v in mx.load(str(folder / "model.safetensors")).items()
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


def trained(
    model: Path, width: int = 64, steps: int = STEPS, **settings: Any
) -> tuple[list[float], int, Stepper]:
    """Losses of steps on one batch, the peak of those after the first, and the stepper."""
    loaded = load(str(model), dequantize=False)
    stepper = Stepper(loaded.model, TrainingSettings(**settings), seed=0)
    batch = made_up(2, width, 2 * width, 512)
    losses = [stepper.step([batch], 0, 1e-3).loss]
    more = range(1, steps)
    taken = peak(lambda: losses.extend(stepper.step([batch], n, 1e-3).loss for n in more))
    return losses, taken, stepper


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_training_converges_as_with_float32_products(
    model: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    ours, _, stepper = trained(model, fine_tune_type=kind)
    kept = [array for _, array in tree_flatten(stepper.model.trainable_parameters())]
    moments = [array for _, array in tree_flatten(stepper.optimizer.state) if array.ndim]
    assert {array.dtype for array in kept + moments} == {mx.float32}
    monkeypatch.setattr(adapters, "compute_in_input_dtype", lambda _: None)
    theirs, _, _ = trained(model, fine_tune_type=kind)
    assert theirs[-1] < 0.8 * theirs[0]
    np.testing.assert_allclose(ours, theirs, rtol=0.02)


def test_no_float32_copy_of_an_input_is_kept(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide: dict[str, Any] = {"width": 512, "steps": 2, "lora_rank": 1}
    _, ours, _ = trained(model, **wide)
    monkeypatch.setattr(adapters, "compute_in_input_dtype", lambda _: None)
    _, theirs, _ = trained(model, **wide)
    assert ours < 0.95 * theirs


def test_a_float32_model_is_trained_to_the_same_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_tiny_model(tmp_path / "m", layers=2)
    ours, _, _ = trained(folder, lora_dropout=0.1)
    monkeypatch.setattr(adapters, "compute_in_input_dtype", lambda _: None)
    assert trained(folder, lora_dropout=0.1)[0] == ours

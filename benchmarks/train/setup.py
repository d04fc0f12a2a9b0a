"""Both trainers on the same model with the same settings."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx_lm.tuner import trainer
from mlx_lm.tuner.utils import linear_to_lora_layers

from safetrain_shared.settings import TrainingSettings
from safetraind.worker import loading
from safetraind.worker.training.step import Stepper

SEED = 0


def settings(**chosen: Any) -> TrainingSettings:
    """What both use: rank 8, constant rate, no clipping, which mlx-lm does not have."""
    common: dict[str, Any] = {
        "batch_size": 4,
        "learning_rate": 1e-5,
        "schedule": "constant",
        "warmup_steps": 0,
        "max_grad_norm": 0.0,
        "lora_layers": 4,
        "max_seq_length": 1024,
    }
    return TrainingSettings(**common | chosen)


def base(model: Path) -> nn.Module:
    """The model in float32, as a CPU worker trains it."""
    return loading.load(str(model), dequantize=True).model


def ours(model: Path, chosen: TrainingSettings) -> Stepper:
    """Our stepper on a fresh copy of the model."""
    return Stepper(base(model), chosen, SEED)


def theirs(
    model: Path,
    chosen: TrainingSettings,
    batches: Callable[..., Iterator[tuple[mx.array, mx.array]]],
    steps: int,
) -> None:
    """Runs mlx-lm's own loop on a fresh copy of the model, over what `batches` yields."""
    network = base(model)
    mx.random.seed(SEED)
    network.freeze()
    parameters = {
        "rank": chosen.lora_rank,
        "scale": chosen.lora_scale,
        "dropout": chosen.lora_dropout,
    }
    linear_to_lora_layers(network, chosen.lora_layers, parameters)
    arguments = trainer.TrainingArgs(
        batch_size=chosen.batch_size,
        iters=steps,
        steps_per_report=10**9,
        steps_per_eval=10**9,
        steps_per_save=10**9,
        max_seq_length=chosen.max_seq_length,
        adapter_file="/dev/null",
        grad_checkpoint=chosen.gradient_checkpointing,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train(
            network,
            optim.AdamW(chosen.learning_rate),
            None,
            None,
            arguments,
            iterate_batches=batches,
        )

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
NEVER = 10**6  # steps: longer than any run here

Batches = Callable[..., Iterator[tuple[mx.array, mx.array]]]


def settings(**chosen: Any) -> TrainingSettings:
    """What both use: rank 8, constant rate, float32, no clipping, which mlx-lm does not have."""
    common: dict[str, Any] = {
        "batch_size": 4,
        "learning_rate": 1e-5,
        "schedule": "constant",
        "warmup_steps": 0,
        "max_grad_norm": 0.0,
        "lora_layers": 4,
        "max_seq_length": 1024,
        "dequantize": True,
        "save_steps": NEVER,
        "eval_steps": NEVER,
        "seed": SEED,
    }
    return TrainingSettings(**common | chosen)


def base(model: Path) -> nn.Module:
    """The model in float32, as a CPU worker trains it."""
    return loading.load(str(model), dequantize=True).model


def ours(model: Path, chosen: TrainingSettings) -> Stepper:
    """Our stepper on a fresh copy of the model."""
    return Stepper(base(model), chosen, SEED)


def theirs(
    network: nn.Module, chosen: TrainingSettings, dataset: Any, batches: Batches, steps: int
) -> None:
    """Runs mlx-lm's own loop on a model as it was loaded, over what `batches` yields."""
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
        steps_per_report=chosen.log_steps,
        steps_per_eval=NEVER,
        steps_per_save=NEVER,
        max_seq_length=chosen.max_seq_length,
        adapter_file="/dev/null",
        grad_checkpoint=chosen.gradient_checkpointing,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train(
            network, _optimizer(chosen), dataset, None, arguments, iterate_batches=batches
        )


def _optimizer(chosen: TrainingSettings) -> optim.AdamW:
    """The optimizer that our stepper makes: mlx's own defaults decay, and correct no bias."""
    return optim.AdamW(chosen.learning_rate, weight_decay=chosen.weight_decay, bias_correction=True)

"""mlx-lm's trainer in the suite's hands: its own loop, its batches and numbers watched."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm import load
from mlx_lm.tuner import datasets, trainer
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.utils import build_schedule, linear_to_lora_layers

from benchmarks.conformance.material import Material
from benchmarks.conformance.trainer import SETTINGS, Report


class Killed(Exception):
    """Stands for a kill: nothing of the trainer runs any more."""


class Theirs:
    """`mlx_lm.tuner.trainer.train`, set up as `mlx_lm.lora` sets it up."""

    name = "mlx_lm"

    def train(
        self, folder: Path, material: Material, *, kill_after: int = 0, **settings: Any
    ) -> Report:
        """See `Trainer.train`."""
        chosen = SimpleNamespace(**SETTINGS | settings)
        accumulation = chosen.gradient_accumulation
        per_epoch = len(material.train) // chosen.batch_size
        iterations = chosen.num_epochs * per_epoch
        report = Report()
        folder.mkdir(parents=True)
        if kill_after:
            done = kill_after * accumulation
            with contextlib.suppress(Killed):
                _train(folder, material, chosen, report, iterations, kill_at=done + 1)
            left = iterations - done
            _train(folder, material, chosen, report, left, resume=folder / "adapters.safetensors")
        else:
            _train(folder, material, chosen, report, iterations)
        report.rates = report.rates[accumulation - 1 :: accumulation]
        return report


def _train(
    folder: Path,
    material: Material,
    chosen: SimpleNamespace,
    report: Report,
    iterations: int,
    *,
    kill_at: int = 0,
    resume: Path | None = None,
) -> None:
    model, tokenizer = load(str(material.model))
    mx.random.seed(chosen.seed)
    np.random.seed(chosen.seed)
    model.freeze()
    parameters = {"rank": 8, "scale": 20.0, "dropout": chosen.lora_dropout}
    linear_to_lora_layers(model, chosen.lora_layers, parameters)
    if resume:
        model.load_weights(str(resume), strict=False)
    masked = SimpleNamespace(mask_prompt=True)
    sets = [
        datasets.CacheDataset(datasets.create_dataset(part, tokenizer, masked))
        for part in (material.train, material.valid)
    ]
    patched = type(model.layers[0]).__call__  # gradient checkpointing replaces it for good
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train(
                model,
                optim.Adam(_rate(chosen, iterations)),
                *sets,
                trainer.TrainingArgs(
                    batch_size=chosen.batch_size,
                    iters=iterations,
                    val_batches=1,
                    steps_per_report=1,
                    steps_per_eval=chosen.eval_steps * chosen.gradient_accumulation,
                    steps_per_save=1,
                    max_seq_length=chosen.max_seq_length,
                    adapter_file=str(folder / "adapters.safetensors"),
                    grad_checkpoint=chosen.gradient_checkpointing,
                    grad_accumulation_steps=chosen.gradient_accumulation,
                ),
                iterate_batches=_Watched(report, sets[0], kill_at),
                training_callback=_Told(report),
            )
    finally:
        type(model.layers[0]).__call__ = patched
    report.weights = {n: np.array(w) for n, w in tree_flatten(model.trainable_parameters())}


def _rate(chosen: SimpleNamespace, iterations: int) -> Any:
    """The learning rate as a user of mlx_lm.lora would write it, in its iterations."""
    if chosen.schedule == "constant" and not chosen.warmup_steps:
        return chosen.learning_rate
    names = {"cosine": "cosine_decay", "linear": "linear_schedule"}
    arguments = {
        "cosine": [chosen.learning_rate, iterations],
        "linear": [chosen.learning_rate, 0.0, iterations],
    }
    return build_schedule(
        {
            "name": names[chosen.schedule],
            "arguments": arguments[chosen.schedule],
            "warmup": chosen.warmup_steps,
        }
    )


class _Watched:
    """mlx-lm's own batches; those of the training set are noted."""

    def __init__(self, report: Report, train: Any, kill_at: int) -> None:
        self._report, self._train, self._kill_at = report, train, kill_at
        self._numbers = {tuple(train[n][0]): n for n in range(len(train))}
        self._real = self._computed = 0

    def __call__(self, dataset: Any, **arguments: Any) -> Iterator[Any]:
        for count, (batch, lengths) in enumerate(
            trainer.iterate_batches(dataset, **arguments), start=1
        ):
            if dataset is self._train:
                if count == self._kill_at:
                    raise Killed
                self._note(np.array(batch), np.array(lengths))
            yield batch, lengths

    def _note(self, batch: Any, lengths: Any) -> None:
        rows = [tuple(row[:end].tolist()) for row, (_, end) in zip(batch, lengths, strict=True)]
        self._report.micro_batches.append([self._numbers.get(row, -1) for row in rows])
        self._real += int((lengths[:, 1] - 1).sum())
        self._computed += batch.shape[0] * (batch.shape[1] - 1)
        self._report.padding = 1 - self._real / self._computed


class _Told(TrainingCallback):
    """Takes the numbers from the callback, at every iteration."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        self._report.losses.append(train_info["train_loss"])
        self._report.rates.append(train_info["learning_rate"])
        trained = train_info["trained_tokens"]
        self._report.learned = int(trained) if math.isfinite(trained) else 0

    def on_val_loss_report(self, val_info: dict[str, Any]) -> None:
        self._report.evaluations.append(val_info["val_loss"])

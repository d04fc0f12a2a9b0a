"""mlx-lm's trainer in the suite's hands: its own loop, its batches and numbers watched.

`python -m benchmarks.conformance.theirs FOLDER` is one training in a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
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
from safetensors.numpy import load_file, save_file

from benchmarks.conformance.material import Material
from benchmarks.conformance.trainer import SETTINGS, Arrays, HasNone, Report, flip_a_bit

_HAS_NONE = ("packing", "loss_chunk", "early_stopping", "max_grad_norm")
_ADAPTER = "adapters.safetensors"
_JOB, _TOLD, _OPTIMIZER = "job.json", "told.jsonl", "optimizer.safetensors"
_PATIENCE_SECONDS = 120.0


class Theirs:
    """`mlx_lm.tuner.trainer.train`, set up as `mlx_lm.lora` sets it up."""

    name = "mlx_lm"

    def train(
        self,
        folder: Path,
        material: Material,
        *,
        kills: Sequence[int] | None = None,
        damage: bool = False,
        **settings: Any,
    ) -> Report:
        """See `Trainer.train`."""
        for name in _HAS_NONE:
            if settings.get(name, SETTINGS[name]) != SETTINGS[name]:
                raise HasNone(f"has no {name}")
        chosen = SimpleNamespace(**SETTINGS | settings)
        per_epoch = len(material.train) // chosen.batch_size
        iterations = chosen.num_epochs * per_epoch
        folder.mkdir(parents=True)
        if kills is not None:
            report = _train_and_kill(folder, material, chosen, iterations, kills, damage)
        else:
            report = _train(folder, material, chosen, iterations)
        report.rates = report.rates[
            chosen.gradient_accumulation - 1 :: chosen.gradient_accumulation
        ]
        report.adapter = folder
        return report


def _train(
    folder: Path,
    material: Material,
    chosen: SimpleNamespace,
    iterations: int,
    resume: Path | None = None,
    kill: int = 0,
) -> Report:
    """Trains here. This process dies by SIGKILL after the iteration `kill`, if given."""
    report = Report()
    model, tokenizer = load(str(material.model))
    mx.random.seed(chosen.seed)
    np.random.seed(chosen.seed)
    model.freeze()
    parameters = {"rank": 8, "scale": 20.0, "dropout": chosen.lora_dropout}
    dora = chosen.fine_tune_type == "dora"
    linear_to_lora_layers(model, chosen.lora_layers, parameters, use_dora=dora)
    config = {
        "fine_tune_type": chosen.fine_tune_type,
        "num_layers": chosen.lora_layers,
        "lora_parameters": parameters,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    if resume:
        model.load_weights(str(resume), strict=False)
    data = SimpleNamespace(mask_prompt=chosen.mask_prompt)
    sets = [
        datasets.CacheDataset(datasets.create_dataset(part, tokenizer, data))
        for part in (material.train, material.valid)
    ]
    optimizer = optim.Adam(_rate(chosen, iterations))
    patched = type(model.layers[0]).__call__  # gradient checkpointing replaces it for good
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train(
                model,
                optimizer,
                *sets,
                trainer.TrainingArgs(
                    batch_size=chosen.batch_size,
                    iters=iterations,
                    steps_per_report=1,
                    steps_per_eval=chosen.eval_steps * chosen.gradient_accumulation,
                    steps_per_save=chosen.save_steps * chosen.gradient_accumulation,
                    max_seq_length=chosen.max_seq_length,
                    adapter_file=str(folder / _ADAPTER),
                    grad_checkpoint=chosen.gradient_checkpointing,
                    grad_accumulation_steps=chosen.gradient_accumulation,
                ),
                iterate_batches=_Watched(report, sets[0]),
                training_callback=_Told(report, folder / _TOLD, kill),
            )
    finally:
        type(model.layers[0]).__call__ = patched
    report.weights, report.optimizer = (
        _arrays(model.trainable_parameters()),
        _arrays(optimizer.state),
    )
    return report


def _arrays(tree: Any) -> Arrays:
    return {name: np.array(value) for name, value in dict(tree_flatten(tree)).items()}


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
            "warmup": chosen.warmup_steps * chosen.gradient_accumulation,
        }
    )


class _Watched:
    """mlx-lm's own batches; those of the training set are noted."""

    def __init__(self, report: Report, train: Any) -> None:
        self._report, self._train = report, train
        self._numbers = {tuple(train[n][0]): n for n in range(len(train))}
        self._real = self._computed = 0

    def __call__(self, dataset: Any, **arguments: Any) -> Iterator[Any]:
        for batch, lengths in trainer.iterate_batches(dataset, **arguments):
            if dataset is self._train:
                self._note(np.array(batch), np.array(lengths))
            yield batch, lengths

    def _note(self, batch: Any, lengths: Any) -> None:
        rows = [tuple(row[:end].tolist()) for row, (_, end) in zip(batch, lengths, strict=True)]
        self._report.micro_batches.append([self._numbers.get(row, -1) for row in rows])
        self._real += int((lengths[:, 1] - 1).sum())
        self._computed += batch.shape[0] * (batch.shape[1] - 1)
        self._report.padding = 1 - self._real / self._computed


class _Told(TrainingCallback):
    """Takes the numbers from the callback, at every iteration, and leaves them in a file."""

    def __init__(self, report: Report, file: Path, kill: int) -> None:
        self._report, self._file, self._kill = report, file, kill

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        self._report.losses.append(train_info["train_loss"])
        self._report.rates.append(train_info["learning_rate"])
        trained = train_info["trained_tokens"]
        self._report.learned = int(trained) if math.isfinite(trained) else 0
        with self._file.open("a") as file:
            file.write(json.dumps({"loss": train_info["train_loss"]}) + "\n")
        if len(self._report.losses) == self._kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_val_loss_report(self, val_info: dict[str, Any]) -> None:
        self._report.evaluations.append(val_info["val_loss"])
        with self._file.open("a") as file:
            file.write(json.dumps({"evaluation": val_info["val_loss"]}) + "\n")


def _train_and_kill(
    folder: Path,
    material: Material,
    chosen: SimpleNamespace,
    iterations: int,
    kills: Sequence[int],
    damage: bool,
) -> Report:
    """Each process goes on from the adapter that the one before it had saved, for what is left."""
    report, done, save = Report(), 0, chosen.save_steps * chosen.gradient_accumulation
    for number, step in enumerate([*kills, 0]):
        part = folder if not step else folder / f"part{number}"
        part.mkdir(exist_ok=True)
        resume = str(_newest(folder)) if done else ""
        job: dict[str, Any] = {"model": str(material.model)}
        job |= {"train": material.train, "valid": material.valid}
        job |= {"chosen": vars(chosen), "iterations": iterations - done, "resume": resume}
        wanted = (step * chosen.gradient_accumulation + chosen.gradient_accumulation // 2) - done
        job |= {"kill": wanted if step else 0}
        (part / _JOB).write_text(json.dumps(job))
        command = [sys.executable, "-m", "benchmarks.conformance.theirs", str(part)]
        code = subprocess.run(command, timeout=_PATIENCE_SECONDS).returncode
        assert code == (-signal.SIGKILL if step else 0)
        told = [json.loads(line) for line in (part / _TOLD).read_text().splitlines()]
        losses = [line["loss"] for line in told if "loss" in line]
        saved = len(losses) // save * save if step else len(losses)
        report.losses += losses[:saved]
        report.evaluations += [line["evaluation"] for line in told if "evaluation" in line]
        done += saved
        if step and damage:
            flip_a_bit(_newest(folder))
    report.weights, report.optimizer = load_file(folder / _ADAPTER), load_file(folder / _OPTIMIZER)
    return report


def _newest(folder: Path) -> Path:
    return max(folder.rglob(_ADAPTER), key=lambda file: file.stat().st_mtime_ns)


def _main(folder: Path) -> None:
    """One training, as `_train_and_kill` left word of it."""
    job = json.loads((folder / _JOB).read_text())
    material = Material(Path(job["model"]), job["train"], job["valid"])
    resume = Path(job["resume"]) if job["resume"] else None
    chosen = SimpleNamespace(**job["chosen"])
    report = _train(folder, material, chosen, job["iterations"], resume, job["kill"])
    save_file(dict(report.optimizer), folder / _OPTIMIZER)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))

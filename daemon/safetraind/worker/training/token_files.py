"""The tokenized samples of a task: made once, kept in its run folder, checked against its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetrain_shared.errors import InvalidInput, NotFound
from safetraind.storage.manifest import sha256
from safetraind.worker.data.encode_chat import Encoder
from safetraind.worker.data.thinking import GIVEN
from safetraind.worker.training import dataset
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.task import Task

FOLDER = "tokens"


def training_samples(task: Task, encoder: Encoder, length: int) -> Samples:
    """Return the training set, written at `length` tokens and read at the plan's.

    Raises as `_samples`, and InvalidInput where nothing can be trained.
    """
    samples = _samples(task, "train", task.spec.train, encoder, length)
    if not samples.usable.any():
        shortest = task.plan.settings.max_seq_length
        raise InvalidInput("train.no_samples", path=task.spec.train, length=shortest)
    return samples


def validation_samples(task: Task, encoder: Encoder, length: int) -> Samples:
    """Return the validation set, as `training_samples` does; empty where the job has none.

    It may be that none of its samples can be used.
    """
    if not task.spec.valid:
        return dataset.write(task.run.root / FOLDER / "valid", (), length, {})
    return _samples(task, "valid", task.spec.valid, encoder, length)


def _samples(task: Task, part: str, path: str, encoder: Encoder, length: int) -> Samples:
    """Return the samples of a file. Raises NotFound without the file, InvalidInput where it changed
    or a line is no sample.
    """
    settings = task.plan.settings
    folder = task.run.root / FOLDER / part
    origin: dict[str, Any] = {
        "sha256": task.hashes[part],
        "model": task.plan.model_path,
        "max_seq_length": length,
        "mask_prompt": encoder.mask_prompt,
    }
    if encoder.thinking != GIVEN:  # so that token files of before the setting are still theirs
        origin["thinking"] = encoder.thinking
    kept = dataset.stored(folder, origin, settings.max_seq_length)
    if kept is not None:
        return kept
    if not Path(path).is_file():
        raise NotFound("path.missing", path=path)
    if sha256(Path(path)) != task.hashes[part]:
        raise InvalidInput("job.data_changed", path=path)
    dataset.write(folder, encoder.encode_file(path), length, origin)
    return Samples(folder, settings.max_seq_length)

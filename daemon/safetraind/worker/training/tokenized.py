"""The tokenized samples of a task: made once, kept in its run folder, checked against its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from safetrain_shared.errors import InvalidInput, NotFound
from safetraind.files.manifest import sha256
from safetraind.worker.corpus.chat import encode_file
from safetraind.worker.training import dataset
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.task import Task

FOLDER = "tokens"


def training_samples(task: Task, tokenizer: TokenizerWrapper) -> Samples:
    """The training set. Raises as `_samples`, and InvalidInput where nothing can be trained."""
    samples = _samples(task, "train", task.spec.train, tokenizer)
    if not len(samples):
        length = task.plan.settings.max_seq_length
        raise InvalidInput("train.no_samples", path=task.spec.train, length=length)
    return samples


def validation_samples(task: Task, tokenizer: TokenizerWrapper) -> Samples | None:
    """The validation set; None where the job has none, or none of its samples can be used."""
    if not task.spec.valid:
        return None
    return _samples(task, "valid", task.spec.valid, tokenizer) or None


def _samples(task: Task, part: str, path: str, tokenizer: TokenizerWrapper) -> Samples:
    """Raises NotFound without the file, InvalidInput where it changed or a line is no sample."""
    settings = task.plan.settings
    folder = task.run.root / FOLDER / part
    origin: dict[str, Any] = {
        "sha256": task.hashes[part],
        "model": task.plan.model_path,
        "max_seq_length": settings.max_seq_length,
        "mask_prompt": settings.mask_prompt,
    }
    kept = dataset.stored(folder, origin)
    if kept is not None:
        return kept
    if not Path(path).is_file():
        raise NotFound("path.missing", path=path)
    if sha256(Path(path)) != task.hashes[part]:
        raise InvalidInput("job.data_changed", path=path)
    encoded = encode_file(path, tokenizer, settings.mask_prompt)
    return dataset.write(folder, encoded, settings.max_seq_length, origin)

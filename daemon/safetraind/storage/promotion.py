"""The checkpoint whose adapter is published in `adapters/`, chosen by the trainer or by the
user.
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetrain_shared.errors import Damaged, NotFound
from safetrain_shared.evaluations import Evaluation
from safetrain_shared.paths import ADAPTERS, EVALUATION, EVALUATION_RESULT, SUMMARY
from safetraind.storage import documents, durable, training_state
from safetraind.storage.manifest import damaged_files
from safetraind.storage.training_state import TrainingState

BY_TASK, BY_LOSS = "task", "best-loss"  # in place of a checkpoint's name
ADAPTER_FILES = ("adapter_config.json", "adapters.safetensors")


@dataclass(frozen=True, slots=True)
class Promotion:
    """The checkpoint in `adapters/` (at `path`) now, and the one `before`; empty: the best by
    loss.
    """

    checkpoint: str
    before: str
    path: str


def promote(output: Path, job_id: int, home: Path, wanted: str) -> Promotion:
    """Publish the adapter of a kept checkpoint in `adapters/`, and record that.

    `wanted`: a checkpoint's name, or one of the two words above: as the evaluation chose, or the
    one with the lowest validation loss, which undoes it. Raises NotFound where there is none,
    Damaged where it is not whole, OSError.
    """
    state = training_state.read(output)
    if state is None or not state.belongs_to(job_id, home):
        raise NotFound("ask.no_adapter", id=job_id)
    name = _name(output, job_id, state, wanted)
    checkpoint = output / name
    if name not in state.checkpoints or not checkpoint.is_dir():
        raise NotFound("ask.checkpoint_unknown", id=job_id, checkpoint=name)
    if (damaged := damaged_files(checkpoint)) != []:
        reason = ", ".join(damaged or ["manifest.json"])
        raise Damaged("train.checkpoint_damaged", checkpoint=name, reason=reason)
    publish(checkpoint, output / ADAPTERS)
    chosen = "" if wanted == BY_LOSS else name
    training_state.write(output, dataclasses.replace(state, promoted=chosen))
    summary = durable.read_object(output / SUMMARY)
    durable.write_json(output / SUMMARY, {**summary, "promoted": chosen})
    return Promotion(name, state.promoted, str(output / ADAPTERS))


def publish(checkpoint: Path, folder: Path) -> None:
    """Copy a checkpoint's adapter into `folder`, file by file and by a rename each.

    A reader finds a whole adapter, the one before or this one. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ADAPTER_FILES:
        new = folder / f".{name}.new"
        durable.clear(new)
        shutil.copyfile(checkpoint / name, new)
        durable.sync_path(new)
        new.replace(folder / name)
    durable.sync_folder(folder)


def _name(output: Path, job_id: int, state: TrainingState, wanted: str) -> str:
    if wanted == BY_LOSS:  # without evaluation the newest is the best
        return str(state.best.get("checkpoint", "")) or (state.checkpoints or ("",))[-1]
    if wanted != BY_TASK:
        return Path(wanted).name
    found = documents.read_known(output / EVALUATION / EVALUATION_RESULT, Evaluation)
    if found is None or found.job_id != job_id or not found.checkpoints:
        raise NotFound("promote.not_evaluated", id=job_id)
    return found.checkpoints[0].checkpoint

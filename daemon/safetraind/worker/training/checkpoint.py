"""Checkpoints: all that determines the next optimizer step, whole on the disk or not there at all.

A folder `checkpoint_epoch_E_step_S` holds the adapter in mlx-lm's form, the optimizer's state,
`state.json` (progress, random state, and the run's fingerprint), and a manifest with sizes and
SHA-256. It is written under another name, brought to the disk, and renamed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from safetrain_shared.errors import Damaged, InvalidInput
from safetrain_shared.paths import checkpoint_name
from safetraind.storage import base_weights, durable
from safetraind.storage.manifest import damaged_files, write_manifest
from safetraind.worker.training import adapters
from safetraind.worker.training.position import RunPosition, from_json, to_json
from safetraind.worker.training.step import Stepper
from safetraind.worker.training.task import Task

FORMAT = 1
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
_NAME = re.compile(r"checkpoint_epoch_(\d+)_step_(\d+)")
_PARTIAL = ".partial"


class Checkpoints:
    """The checkpoints of one run in its output folder."""

    def __init__(self, task: Task) -> None:
        """Remove partial checkpoints. Whole ones of another training are left alone."""
        self._output = task.output
        self._fingerprint = task.fingerprint
        self._settings = task.plan.settings
        self._model = task.plan.model_path
        self._base = base_weights.facts(Path(self._model))
        self._damaged: set[str] = set()  # the names of those whose hashes were found wrong
        for left in self._output.glob(f".checkpoint_*{_PARTIAL}"):  # by a kill while saving
            durable.clear(left)

    def save(self, stepper: Stepper, progress: RunPosition) -> Path:
        """Write the checkpoint of the run's position, then drop those no longer to be kept.

        Raises OSError, e.g. on a full disk. The earlier checkpoints are then untouched.
        """
        target = self._output / checkpoint_name(progress.epoch, progress.step_in_epoch)
        partial = target.with_name(f".{target.name}{_PARTIAL}")
        durable.clear(partial)
        partial.mkdir(parents=True)
        try:
            self._fill(partial, stepper, progress)
            durable.clear(target)  # there only after a step back, or damaged
            partial.rename(target)
        except OSError:
            durable.clear(partial)
            raise
        durable.sync_folder(self._output)
        self._damaged.discard(target.name)
        self._prune(target.name, progress.best_checkpoint)
        return target

    def load(self, folder: Path, stepper: Stepper) -> RunPosition:
        """Restore model, optimizer and random state from a checkpoint.

        Raises Damaged, and InvalidInput where the base model has changed.
        """
        state = durable.read_object(folder / STATE)
        if swapped := base_weights.changed(state.get("base") or {}, self._base):
            args = {"path": self._model, "files": ", ".join(swapped)}
            raise InvalidInput("train.base_changed", checkpoint=folder.name, **args)
        try:
            adapters.put(stepper.model, _arrays_in(folder / adapters.WEIGHTS))
            stepper.restore(_arrays_in(folder / OPTIMIZER))
            _restore_random(state["random"])
            return from_json(state["progress"])
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise Damaged(
                "train.checkpoint_damaged", checkpoint=folder.name, reason=str(error)
            ) from error

    def progress(self, folder: Path) -> RunPosition:
        """Return the run's position at a whole checkpoint."""
        return from_json(durable.read_json(folder / STATE)["progress"])

    def newest_first(self) -> Iterator[tuple[Path, list[str] | None]]:
        """Yield the run's checkpoints, each with its damaged files, or None without a manifest."""
        for folder in self._own():
            yield folder, self._examined(folder)

    def load_newest(self, stepper: Stepper) -> RunPosition | None:
        """Restore from the newest whole checkpoint; return None where there is none. Raises as
        `load`.
        """
        whole = (folder for folder, damaged in self.newest_first() if damaged == [])
        newest = next(whole, None)
        return None if newest is None else self.load(newest, stepper)

    def is_whole(self, name: str) -> bool:
        """Return whether the checkpoint of that name exists and matches its manifest's hashes."""
        return self._examined(self._output / name) == []

    def names(self) -> list[str]:
        """Return the names of the run's whole checkpoints, newest last.

        By sizes, and by hashes as far as they were looked at.
        """
        whole = [f.name for f in self._own() if damaged_files(f, hashes=False) == []]
        return [name for name in whole if name not in self._damaged][::-1]

    def drop(self, name: str) -> None:
        """Delete a checkpoint."""
        shutil.rmtree(self._output / name, ignore_errors=True)

    def _examined(self, folder: Path) -> list[str] | None:
        damaged = damaged_files(folder)
        if damaged != []:
            self._damaged.add(folder.name)
        return damaged

    def _fill(self, folder: Path, stepper: Stepper, progress: RunPosition) -> None:
        _write_arrays(folder / adapters.WEIGHTS, adapters.weights(stepper.model))
        _write_arrays(folder / OPTIMIZER, dict(tree_flatten(stepper.optimizer.state)))
        adapters.write_config(folder, stepper.model, self._settings, self._model)
        durable.write_json(
            folder / STATE,
            {
                "fingerprint": self._fingerprint,
                "progress": to_json(progress),
                "random": _random_key(),
                "base": self._base,
            },
        )
        write_manifest(folder, {"checkpoint": FORMAT, "step": progress.step})

    def _prune(self, newest: str, best: str) -> None:
        """Keep this run's newest `keep_checkpoints` whole ones, the one just saved and the best.

        Damaged ones go too, unless nothing shows any more that they belong to this run.
        """
        damaged = {f.name for f in self._own() if f.name in self._damaged and self._is_ours(f)}
        old = self.names()[: -self._settings.keep_checkpoints]
        for name in damaged.union(old) - {newest, best}:
            self.drop(name)

    def _own(self) -> Iterator[Path]:
        """Yield this run's checkpoints, the newest first. One whose state is unreadable counts as
        its own.
        """
        if not self._output.is_dir():
            return
        matches = [(_NAME.fullmatch(entry.name), entry) for entry in self._output.iterdir()]
        found = [((int(m[1]), int(m[2])), entry) for m, entry in matches if m]
        for _, folder in sorted(found, reverse=True):
            if self._is_ours(folder) or durable.read_json(folder / STATE) is None:
                yield folder

    def _is_ours(self, folder: Path) -> bool:
        state = durable.read_json(folder / STATE)
        return isinstance(state, dict) and state.get("fingerprint") == self._fingerprint


def _arrays_in(file: Path) -> dict[str, mx.array]:
    arrays: Any = mx.load(str(file))
    return dict(arrays)


def _write_arrays(file: Path, arrays: dict[str, mx.array]) -> None:
    """Write safetensors. Raises OSError, which names the file.

    They are written through Python's file, since MLX's error gives no reason.
    """
    try:
        with file.open("wb") as out:
            mx.save_safetensors(out, arrays, {"format": "mlx"})
    except OSError as error:
        error.filename = error.filename or str(file)
        raise


def _random_key() -> list[int]:
    state: Any = mx.random.state
    key: list[int] = state[0].tolist()
    return key


def _restore_random(key: list[int]) -> None:
    """Restore the random state. MLX's can be set by a seed only, of which it keeps the halves (mlx
    0.32).
    """
    mx.random.seed((key[0] << 32) | key[1])

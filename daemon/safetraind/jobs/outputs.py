"""A job's output folder: what it holds already, and which of its files are ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetrain_shared.errors import AlreadyFinished, Conflict
from safetrain_shared.paths import (
    ADAPTERS,
    METRICS_CSV,
    METRICS_JSON,
    PLOTS,
    PREFLIGHT_REPORT,
    RECOMMENDED_CONFIG,
    REPORT,
    STATE,
    SUMMARY,
)
from safetraind.files import training_state
from safetraind.files.manifest import NAME as MANIFEST
from safetraind.files.training_state import TrainingState

_RUN_FILES = (STATE, METRICS_JSON, METRICS_CSV, SUMMARY)
_PREFLIGHT_FILES = (PREFLIGHT_REPORT, RECOMMENDED_CONFIG)
_IN_FOLDERS = {
    ADAPTERS: ("adapters.safetensors", "adapter_config.json", MANIFEST),
    PLOTS: ("loss.png", "learning_rate.png", "memory_usage.png", REPORT),
}
_CHECKPOINT = re.compile(r"\.?checkpoint_epoch_\d+_step_\d+(\.partial)?")
_IN_CHECKPOINT = (*_IN_FOLDERS[ADAPTERS], "optimizer.safetensors", "state.json")


def examine(output: Path, document: Mapping[str, Any]) -> TrainingState | None:
    """The training in the folder that the job of `document` (as `spec.json`) would continue.

    None where there is none. Raises AlreadyFinished where it holds a finished one, and Conflict
    where it began with other values, which are named.
    """
    state = training_state.read(output)
    if state is None:
        return None
    if state.state == "succeeded":
        raise AlreadyFinished("job.output_finished", output=str(output), id=state.job)
    if state.fingerprint != training_state.fingerprint(document):
        differences = _differences(state.spec, document["spec"]) or "data"
        raise Conflict("job.output_differs", output=str(output), differences=differences)
    return state


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The names of what differs, as `learning_rate (0.0002, now 0.001)`."""
    was = {"model": old.get("model"), **dict(old.get("settings", {}))}
    now = {"model": new.get("model"), **dict(new.get("settings", {}))}
    names = [name for name in sorted(was | now) if was.get(name) != now.get(name)]
    told = [f"{name} ({_told(was.get(name))}, now {_told(now.get(name))})" for name in names]
    files = [name for name in ("train", "valid") if old.get(name) != new.get(name)]
    return ", ".join(told + files)


def _told(value: Any) -> str:
    return "–" if value is None else str(value)


def move_aside(output: Path) -> Path | None:
    """Moves the files of the training in `output` to a sibling `OUTPUT.previous-N`.

    Returns it, or None where there was nothing to move. Other files stay. Raises OSError.
    """
    files = list(_ours(output))
    if not files:
        return None
    aside = _free_sibling(output)
    for file in files:
        target = aside / file.relative_to(output)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    _remove_empty_folders(output)
    return aside


def remove(output: str, job_id: int) -> list[str]:
    """Deletes the files of this job's training and returns those that are not ours.

    A folder that meanwhile holds another job's training is left alone.
    """
    folder = Path(output)
    state = training_state.read(folder)
    if state is None or state.job == job_id:
        for file in [*_ours(folder), *_existing(folder, _PREFLIGHT_FILES)]:
            file.unlink(missing_ok=True)
        _remove_empty_folders(folder)
    return sorted(str(file) for file in folder.rglob("*") if not file.is_dir())


def _ours(output: Path) -> Iterator[Path]:
    yield from _existing(output, _RUN_FILES)
    for name, files in _IN_FOLDERS.items():
        yield from _existing(output / name, files)
    for folder in _checkpoints(output):
        yield from _existing(folder, _IN_CHECKPOINT)


def _existing(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        if (folder / name).is_file():
            yield folder / name


def _checkpoints(output: Path) -> list[Path]:
    if not output.is_dir():
        return []
    return [f for f in output.iterdir() if f.is_dir() and _CHECKPOINT.fullmatch(f.name)]


def _remove_empty_folders(output: Path) -> None:
    for folder in [*_checkpoints(output), *(output / name for name in _IN_FOLDERS), output]:
        try:
            folder.rmdir()
        except OSError:
            pass  # it holds something that is not ours, or is not there


def _free_sibling(output: Path) -> Path:
    number = 1
    while (sibling := output.with_name(f"{output.name}.previous-{number}")).exists():
        number += 1
    return sibling


def same_spec(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two specifications ask for the same; their names and keys' order do not matter."""
    return _canonical(one) == _canonical(other)


def _canonical(spec: Mapping[str, Any]) -> str:
    return json.dumps({k: v for k, v in spec.items() if k != "name"}, sort_keys=True)

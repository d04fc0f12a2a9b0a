"""A job's output folder: the training it holds, and the files that belong to it."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetrain_shared.errors import AlreadyFinished, Conflict, NotAllowed
from safetrain_shared.jobs import JobSpec
from safetrain_shared.paths import (
    ADAPTERS,
    EVALUATION,
    EVALUATION_RESULT,
    METRICS_CSV,
    METRICS_JSON,
    PLOTS,
    PREFLIGHT_REPORT,
    PREPARED,
    RECOMMENDED_CONFIG,
    REPORT,
    SPLIT,
    STATE,
    SUMMARY,
    TENSORBOARD,
)
from safetraind.storage import training_state
from safetraind.storage.job_document import NOT_THE_TRAINING, JobDocument
from safetraind.storage.manifest import NAME as MANIFEST
from safetraind.storage.training_state import TrainingState

_RUN_FILES = (STATE, METRICS_JSON, METRICS_CSV, SUMMARY)
_PREFLIGHT_FILES = (PREFLIGHT_REPORT, RECOMMENDED_CONFIG)
_IN_FOLDERS = {
    ADAPTERS: ("adapters.safetensors", "adapter_config.json", MANIFEST),
    PLOTS: ("loss.png", "learning_rate.png", "memory_usage.png", REPORT),
}
_OPTIONS = ("memory_budget", "trust_remote_code", "allow_shorter", "evaluation")
_CHECKPOINT = re.compile(r"\.?checkpoint_epoch_\d+_step_\d+(\.partial)?")
_IN_CHECKPOINT = (*_IN_FOLDERS[ADAPTERS], "optimizer.safetensors", "state.json")


def check_home(output: Path, home: Path) -> None:
    """Raise Conflict where the folder holds a training of another home."""
    state = training_state.read(output)
    if state is not None and (other := state.other_home(home)):
        raise Conflict("job.output_of_other_home", output=str(output), id=state.job, home=other)


def examine(output: Path, document: JobDocument) -> TrainingState | None:
    """Return the training in the folder that the job of `document` would continue.

    None where there is none. Raises AlreadyFinished where it holds a finished one, and Conflict
    where it began with other values, which are named, Incompatible where a newer version wrote it.
    """
    state = training_state.read(output)
    if state is None:
        return None
    if state.state == "succeeded":
        raise AlreadyFinished("job.output_finished", output=str(output), id=state.job)
    if state.fingerprint != document.fingerprint:
        raise _differing(output, state, document)
    return state


def check_not_replaced(
    output: Path, job_id: int, home: Path, document: JobDocument | None = None
) -> None:
    """Raise Conflict where the folder holds by now the training of another job, or of another home.

    One that the training of `document` can continue, by its fingerprint, is no such.
    """
    state = training_state.read(output)
    if state is None or state.belongs_to(job_id, home):
        return
    if state.other_home(home):
        document = None
    same = document is not None and state.fingerprint == document.fingerprint
    if not same or state.state == "succeeded":
        owner = state.home or str(home)
        where = str(output)
        raise Conflict("job.output_replaced", output=where, id=job_id, other=state.job, home=owner)


def _differing(output: Path, state: TrainingState, document: JobDocument) -> Conflict:
    spec = document.spec
    named = differences(state.spec or spec, spec) or _other_folder(state, document)
    if named:
        return Conflict("job.output_differs", output=str(output), differences=named)
    files = {"train": spec.train, "valid": spec.valid}
    return Conflict("job.output_data_differs", output=str(output), **files)


def differences(old: JobSpec, new: JobSpec) -> str:
    """Return the differences that make two specifications different trainings, as `learning_rate:
    0.0002 → 0.001`.

    Names of settings and options with their values, the same in every language; empty: nothing.
    """
    was, now = _decisive(old), _decisive(new)
    names = [name for name in sorted(was | now) if was.get(name) != now.get(name)]
    return ", ".join(_change(name, was.get(name), now.get(name)) for name in names)


def options(spec: JobSpec) -> dict[str, Any]:
    """Return the settings that a job may change when it continues, because none of them makes
    another training.
    """
    return {name: getattr(spec, name) for name in _OPTIONS}


def _decisive(spec: JobSpec) -> dict[str, Any]:
    settings = {k: v for k, v in spec.settings.items() if k not in NOT_THE_TRAINING}
    paths = {"model": spec.model, "train": spec.train, "valid": spec.valid}
    return {**settings, **paths, "start_adapter": spec.start_adapter or None}


def _other_folder(state: TrainingState, document: JobDocument) -> str:
    """Return the change of the model's folder where one name means two, as `demo` in two homes."""
    was, model = state.plan.model_path if state.plan else "", document.model
    if not was or model.hub or was == model.path:
        return ""
    return _change("model", was, model.path)


def _change(name: str, was: Any, now: Any) -> str:
    texts = ["–" if value is None else str(value) for value in (was, now)]
    return f"{name}: {texts[0]} → {texts[1]}"


def move_aside(output: Path) -> Path | None:
    """Move the files of the training in `output` to a sibling `OUTPUT.previous-N`.

    Return its path, or None where there was nothing to move. Other files stay. Raises NotAllowed
    where the folder's parent may not be written or lies on another disk, OSError where the disk
    refuses. After an error everything is where it was.
    """
    files = list(_ours(output))
    if not files:
        return None
    aside = _free_sibling(output)
    moved: list[tuple[Path, Path]] = []
    try:
        for file in files:
            target = aside / file.relative_to(output)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
            moved.append((target, file))
    except OSError as error:
        for target, file in moved:
            target.rename(file)
        _remove_empty_folders(aside)
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EXDEV):
            raise
        args = {"output": str(output), "aside": str(aside), "reason": error.strerror}
        raise NotAllowed("job.not_aside", **args) from error
    _remove_empty_folders(output)
    return aside


def remove(output: str, job_id: int, home: Path) -> list[str]:
    """Delete the files of this job's training and return the paths of those that remain.

    A folder that meanwhile holds another training is left alone: another job's, or that of a job of
    another home with the same number.
    """
    folder = Path(output)
    state = training_state.read(folder)
    if state is None or state.belongs_to(job_id, home):
        for file in [*_ours(folder), *_split(folder), *_existing(folder, _PREFLIGHT_FILES)]:
            file.unlink(missing_ok=True)
        _remove_empty_folders(folder)
    return sorted(str(file) for file in folder.rglob("*") if not file.is_dir())


def results(output: Path) -> list[Path]:
    """Return the files that a training leaves for its user, without its checkpoints.

    Symbolic links are left out, because they may lead out of the folder.
    """
    found = [*_but_checkpoints(output), *_existing(output, _PREFLIGHT_FILES)]
    return [file for file in found if not file.is_symlink()]


def _ours(output: Path) -> Iterator[Path]:
    yield from _but_checkpoints(output)
    for folder in _checkpoints(output):
        yield from _existing(folder, _IN_CHECKPOINT)


def _but_checkpoints(output: Path) -> Iterator[Path]:
    yield from _existing(output, _RUN_FILES)
    for name, files in _IN_FOLDERS.items():
        yield from _existing(output / name, files)
    yield from _existing(output / EVALUATION, (EVALUATION_RESULT,))
    yield from output.glob(f"{EVALUATION}/answers-*.json")
    yield from output.glob(f"{EVALUATION}/tasks-*.json")
    yield from output.glob(f"{TENSORBOARD}/job-*/events.out.tfevents.*")


def _split(output: Path) -> Iterator[Path]:
    """Yield the files that `submit --split` made of the data. Another training of the folder may
    still use them.
    """
    for folder in output.glob(f"{SPLIT}*"):
        if (folder / PREPARED).is_file():
            yield from _existing(folder, ("train.jsonl", "valid.jsonl", PREPARED))


def _existing(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        if (folder / name).is_file():
            yield folder / name


def _checkpoints(output: Path) -> list[Path]:
    if not output.is_dir():
        return []
    return [f for f in output.iterdir() if f.is_dir() and _CHECKPOINT.fullmatch(f.name)]


def _remove_empty_folders(output: Path) -> None:
    boards = [*output.glob(f"{TENSORBOARD}/job-*"), output / TENSORBOARD, output / EVALUATION]
    boards += output.glob(f"{SPLIT}*")
    ours = [*_checkpoints(output), *(output / name for name in _IN_FOLDERS), *boards]
    for folder in [*ours, output]:
        try:
            folder.rmdir()
        except OSError:
            pass  # it holds something that is not ours, or is not there


def _free_sibling(output: Path) -> Path:
    number = 1
    while (sibling := output.with_name(f"{output.name}.previous-{number}")).exists():
        number += 1
    return sibling

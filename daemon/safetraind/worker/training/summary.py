"""training_summary.json: a run's end, its data and settings, and its incidents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetrain_shared.codec import to_plain
from safetrain_shared.events import Outcome
from safetrain_shared.history import history
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import PREPARED
from safetraind.storage import event_file
from safetraind.storage.durable import read_json
from safetraind.worker.training import memory_limits
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.position import RunPosition
from safetraind.worker.training.task import Task


def summary(
    task: Task,
    progress: RunPosition,
    outcome: Outcome,
    total_steps: int,
    samples: Samples,
    validation: Samples,
) -> dict[str, Any]:
    """Return the file's content. Seconds, tokens, bytes; steps are optimizer steps."""
    return {
        "format": 1,
        "version": 1,
        "job": task.job,
        "outcome": outcome.outcome,
        "cause": to_plain(outcome.cause),
        "steps": progress.step,
        "total_steps": total_steps,
        "epochs": progress.epoch + (progress.step > 0),
        "seconds": progress.seconds,
        "tokens": progress.tokens,
        "tokens_per_second": progress.tokens / max(progress.seconds, 1e-9),
        "samples": _used(samples),
        "samples_seen": progress.samples,
        "samples_cut": samples.cut,
        "samples_left_out": samples.left_out,
        "validation_samples": _used(validation),
        "validation_samples_left_out": validation.left_out,
        "first_loss": _finite(progress.first_loss),
        "last_loss": _finite(progress.last_loss),
        "base_loss": _finite(progress.base_loss),
        "best": best_of(progress),
        "adapters": str(task.adapters),
        "peak_memory": memory_limits.peak(),
        "model": task.plan.model_path,
        "data": _data(task),
        "start_adapter": task.spec.start_adapter,
        "settings": to_plain(task.plan.settings),
        "seed": task.seed,
        "happened": list(_happened(task.run.events)),
    }


def _data(task: Task) -> dict[str, Any]:
    """Return the files of the training, and their sources where they were prepared."""
    paths = {"train": task.spec.train, "valid": task.spec.valid}
    found: dict[str, Any] = {
        part: {"path": path, "sha256": task.hashes[part]}
        for part, path in paths.items()
        if part in task.hashes
    }
    file = Path(task.spec.train)
    prepared = read_json(file.with_name(PREPARED)) or {}
    if prepared.get("files", {}).get(file.name) == task.hashes["train"]:
        found["prepared"] = {k: v for k, v in prepared.items() if k not in ("format", "files")}
    return found


def best_of(progress: RunPosition) -> dict[str, Any]:
    """Return the best checkpoint, its step and its loss, and how many questions ended the run with
    it, if any did; empty before the first evaluation.
    """
    if not progress.best_step:
        return {}
    best = {
        "checkpoint": progress.best_checkpoint,
        "step": progress.best_step,
        "loss": progress.best_loss,
    }
    return {**best, "answered": progress.answered} if progress.answered else best


def _used(samples: Samples) -> int:
    """Return the number of samples that are used."""
    return int(samples.usable.sum())


def _happened(events: Path) -> Iterator[dict[str, Any]]:
    """Yield the notices and interruptions: settings changed, holds, damage, deaths."""
    known = history(read.event for read in event_file.read(events))
    interrupted = [one for one in known.troubles if one.state is JobState.INTERRUPTED]
    for one in sorted([*known.notices, *interrupted], key=lambda one: one.time):
        finding = {"code": one.finding.code, "args": to_plain(one.finding.args)}
        yield {"time": one.time, "attempt": one.attempt, **finding}


def _finite(value: float) -> float | None:
    return value if value == value else None

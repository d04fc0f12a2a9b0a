"""`training_state.json` in a job's output folder: whose training it holds and how far it is.

The trainer writes it at each checkpoint; the daemon reads it when a job is submitted to the folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetrain_shared.paths import STATE
from safetraind.storage import durable

VERSION = 1


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What the file says. `state` is `training` or an `Outcome`: succeeded, paused, cancelled,
    failed. `checkpoints` are names, newest last; `best` has `checkpoint`, `step` and `loss`, and is
    empty before the first evaluation. Steps are optimizer steps.
    """

    job: int
    state: str
    fingerprint: str
    home: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    checkpoints: tuple[str, ...] = ()
    best: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    total_steps: int = 0
    version: int = VERSION


def read(output: Path) -> TrainingState | None:
    """What the folder's file says; None where there is none that can be read."""
    data = durable.read_json(output / STATE)
    names = {f.name for f in dataclasses.fields(TrainingState)}
    try:
        known = {k: v for k, v in data.items() if k in names}
        return TrainingState(**known | {"checkpoints": tuple(known.get("checkpoints", ()))})
    except (AttributeError, TypeError):
        return None


def write(output: Path, state: TrainingState) -> None:
    """Replaces the folder's file. Raises OSError."""
    durable.write_json(output / STATE, dataclasses.asdict(state))


def fingerprint(task: Mapping[str, Any]) -> str:
    """What a training is, from its `spec.json`: the model, the data by their hashes, the chosen
    settings and the seed. Two trainings of one fingerprint may go on from each other's checkpoints.
    """
    data = {name: part.get("sha256") for name, part in sorted(task.get("data", {}).items())}
    model = task.get("model", {}).get("path")
    what = [model, data, task["spec"].get("settings", {}), task.get("seed")]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

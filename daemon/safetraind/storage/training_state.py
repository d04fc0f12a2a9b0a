"""`training_state.json` in a job's output folder: whose training it holds and how far it is.

The trainer writes it at each checkpoint; the daemon reads it when a job is submitted to the folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import STATE, Home
from safetraind.storage import documents


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The content of the file.

    `state` is `training` or an `Outcome`: succeeded, paused, cancelled, failed. `checkpoints` are
    names, newest last. `best` has `checkpoint`, `step` and `loss`, and is empty before the first
    evaluation; `answered`: as many questions, all answered right, ended the training. Steps are
    optimizer steps. `promoted`: the checkpoint whose adapter the user put in `adapters/`; empty:
    that of `best`.
    """

    FORMAT: ClassVar[int] = 1

    job: int
    state: str
    fingerprint: str
    home: str = ""
    spec: JobSpec | None = None
    plan: Plan | None = None
    checkpoints: tuple[str, ...] = ()
    best: Mapping[str, str | float | int] = field(default_factory=dict)
    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    total_steps: int = 0
    promoted: str = ""

    def belongs_to(self, job_id: int, home: Path) -> bool:
        """Return whether it is that job of that home; numbers alone repeat from home to home.

        The number decides where an older version named no home, and where the home was moved.
        """
        return self.job == job_id and not self.other_home(home)

    def other_home(self, home: Path) -> str:
        """Return the home whose training it is, where that is there and is another than `home`;
        else nothing.
        """
        there = bool(self.home) and Home(Path(self.home)).database.exists()
        same = os.path.realpath(self.home) == os.path.realpath(home)
        return self.home if there and not same else ""


def read(output: Path) -> TrainingState | None:
    """Return the content of the folder's file; None where there is no readable one.

    Raises Incompatible for a file of a newer version.
    """
    return documents.read(output / STATE, TrainingState)


def write(output: Path, state: TrainingState) -> None:
    """Replace the folder's file. Raises OSError."""
    documents.write(output / STATE, state)

"""What a training worker is to do, from the files of its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetrain_shared.codec import from_plain
from safetrain_shared.errors import Damaged
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import ADAPTERS, RunFolder
from safetraind.storage import durable, training_state


@dataclass(frozen=True, slots=True)
class Task:
    """One training: its specification and plan, both frozen, and where it reads and writes.

    `hashes`: the SHA-256 of the files `train` and `valid` when the job was submitted.
    """

    run: RunFolder
    job: int
    spec: JobSpec
    plan: Plan
    seed: int
    hashes: Mapping[str, str]
    fingerprint: str
    frozen_spec: Mapping[str, Any]

    @property
    def output(self) -> Path:
        """The user's folder."""
        return Path(self.spec.output)

    @property
    def adapters(self) -> Path:
        """Where the best adapter goes."""
        return self.output / ADAPTERS


def read(run: RunFolder) -> Task:
    """The task in a run folder. Raises Damaged where its files cannot be read."""
    frozen, plan = durable.read_json(run.spec), durable.read_json(run.plan)
    try:
        return Task(
            run=run,
            job=frozen["job"],
            spec=from_plain(frozen["spec"], JobSpec),
            plan=from_plain(plan, Plan),
            seed=frozen["seed"],
            hashes={name: part["sha256"] for name, part in frozen["data"].items()},
            fingerprint=training_state.fingerprint(frozen),
            frozen_spec=frozen["spec"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged("run.unreadable", path=str(run.root), reason=str(error)) from error

"""The task of a training worker, from the files of its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetrain_shared.errors import Damaged
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import ADAPTERS, RunFolder
from safetraind.storage import documents
from safetraind.storage.job_document import JobDocument


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

    @property
    def output(self) -> Path:
        """The user's output folder."""
        return Path(self.spec.output)

    @property
    def adapters(self) -> Path:
        """The folder of the best adapter."""
        return self.output / ADAPTERS


def read(run: RunFolder) -> Task:
    """Return the task in a run folder.

    Raises Damaged where its files cannot be read, Incompatible where a newer version wrote them.
    """
    frozen, plan = documents.read(run.spec, JobDocument), documents.read(run.plan, Plan)
    if frozen is None or plan is None:
        raise Damaged("run.unreadable", path=str(run.root), reason="spec.json, plan.json")
    return Task(
        run=run,
        job=frozen.job,
        spec=frozen.spec,
        plan=plan,
        seed=frozen.seed,
        hashes={name: file.sha256 for name, file in frozen.data.items()},
        fingerprint=frozen.fingerprint,
    )

"""A job as the database keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field

from safetrain_shared.jobs import JobSpec
from safetraind.scheduler.state import Job
from safetraind.storage.job_document import JobDocument


@dataclass(frozen=True, slots=True)
class Record:
    """A job's row. Times are seconds since the epoch, UTC; 0: not yet.

    `document` is also in `spec.json`. `job` lacks the plan, which is in `plan.json`.
    """

    job: Job
    document: JobDocument = field(repr=False)
    output: str
    created: float
    started: float
    finished: float

    @property
    def spec(self) -> JobSpec:
        """The specification as the user gave it."""
        return self.document.spec

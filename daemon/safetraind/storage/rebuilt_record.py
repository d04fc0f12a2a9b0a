"""A job's record rebuilt from its run folder, for where the database has lost or damaged it.

What was submitted is in `spec.json`, what happened in `events.log`. Only in the database are the
idempotency key, `after`, and the order of the queue; the queue is then in the order of the ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from safetrain_shared.events import StateChanged
from safetrain_shared.history import Progress
from safetrain_shared.jobs import FINAL, JobState
from safetrain_shared.paths import RunFolder
from safetraind.scheduler.state import Job
from safetraind.storage import documents, event_file
from safetraind.storage.job_document import JobDocument
from safetraind.storage.record import Record

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def run_numbers(runs: Path) -> Iterator[int]:
    """Yield the numbers of the jobs that have a run folder, in no order."""
    if runs.is_dir():
        yield from (int(run.name) for run in runs.iterdir() if _NUMBER.fullmatch(run.name))


def rebuild(run: RunFolder, job_id: int, document: JobDocument | None = None) -> Record | None:
    """Return the record; None where no specification is left.

    `document`: the specification, if it is known from elsewhere than `spec.json`.
    """
    document = document or documents.read_known(run.spec, JobDocument)
    if document is None or document.job not in (0, job_id):
        return None
    progress, created, started = Progress(), 0.0, 0.0
    for read in event_file.read_known(run.events):
        progress.take(read.event)
        created = created or read.event.time
        body = read.event.body
        if isinstance(body, StateChanged) and body.state is JobState.RUNNING:
            started = started or read.event.time
    state = progress.state or JobState.QUEUED
    job = Job(
        id=job_id,
        state=state,
        position=float(job_id),
        attempt=progress.attempt,
        cause=progress.cause,
        allow_shorter=document.spec.allow_shorter,
    )
    output = str(Path(document.spec.output).resolve())
    finished = progress.state_time if state in FINAL else 0.0
    return Record(job, document, output, created, started, finished)


def is_ahead(rebuilt: Job, row: Job) -> bool:
    """Return whether a job's events are ahead of its row, because the database lost its end.

    The row is always written first, so events are behind it, or even.
    """
    succeeded = rebuilt.state is JobState.SUCCEEDED and row.state not in FINAL
    return rebuilt.attempt > row.attempt or succeeded

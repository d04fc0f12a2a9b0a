"""Jobs as the daemon finds them at its start: rows, plans, and what the events know better."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

from safetrain_shared.errors import SafetrainError
from safetrain_shared.findings import finding_of
from safetrain_shared.jobs import FINAL, JobState, Plan
from safetrain_shared.paths import Home
from safetraind.controller.job_progress import JobProgress
from safetraind.controller.worker_exit import ineffective_fallbacks
from safetraind.scheduler.state import Job
from safetraind.storage import documents, restore
from safetraind.storage.job_store import JobStore
from safetraind.storage.rebuilt_record import is_ahead, rebuilt
from safetraind.storage.record import Record

_BEGUN = (JobState.RUNNING, JobState.INTERRUPTED)
log = logging.getLogger(__name__)


def found(home: Home, store: JobStore, progress: JobProgress) -> Iterator[tuple[Record, Job]]:
    """Yield each job's record and the job with its plan, after what was lost was added."""
    restore.add_lost(store, home)
    for record in store.all():
        newest = _up_to_date(home, store, record)
        yield newest, _with_plan(home, progress, newest.job)


def _up_to_date(home: Home, store: JobStore, record: Record) -> Record:
    """Return the record, or one rebuilt of the events where the database lost its end."""
    job = record.job
    if job.state in FINAL:
        return record
    told = rebuilt(home.run(job.id), job.id, record.document)
    if told is None or not is_ahead(told.job, job):
        return record
    log.warning("job %d: its row is older than its events, which count", job.id)
    store.put(told)
    return store.get(job.id)


def _with_plan(home: Home, progress: JobProgress, job: Job) -> Job:
    """Return the job with the plan of its run folder, else the one that its events tell.

    A plan of a newer version sets the job aside.
    """
    run, live = home.run(job.id), job.state not in FINAL
    try:
        plan = documents.read(run.plan, Plan)
        # A job that waits and has no such file is to be planned anew.
        if plan is None and live and (job.state in _BEGUN or run.plan.exists()):
            plan = progress.of(job.id, ended=False).plan
    except SafetrainError as error:
        return dataclasses.replace(job, state=JobState.FAILED, cause=finding_of(error))
    if plan is None:
        return job
    return dataclasses.replace(job, plan=plan, ineffective=ineffective_fallbacks(run))

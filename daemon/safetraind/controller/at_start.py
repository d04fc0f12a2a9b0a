"""Loads the jobs when the daemon starts: rows and plans, corrected by their event files."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from safetrain_shared.errors import SafetrainError
from safetrain_shared.findings import finding_of
from safetrain_shared.jobs import FINAL, JobState, Plan
from safetrain_shared.paths import Home
from safetraind.controller.job_progress import JobProgress
from safetraind.controller.worker_exit import ineffective_fallbacks
from safetraind.scheduler.state import Job
from safetraind.storage import documents, event_file, restore
from safetraind.storage.job_store import JobStore
from safetraind.storage.rebuilt_record import is_ahead, rebuild, run_numbers
from safetraind.storage.record import Record
from safetraind.storage.run_folder import set_odd_aside

_BEGUN = (JobState.RUNNING, JobState.INTERRUPTED)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A job as it was found, with its plan.

    Where plan or events are of a newer version, `is_readable` is False and the job has failed, in
    memory alone.
    """

    record: Record
    job: Job
    is_readable: bool = True


def found(home: Home, store: JobStore, progress: JobProgress) -> Iterator[Found]:
    """Yield each job, after adding those that the database has lost."""
    for number in run_numbers(home.root / "runs"):
        set_odd_aside(home.run(number).root)
    restore.add_lost(store, home)
    for record in store.all():
        try:
            event_file.check_readable(home.run(record.job.id).events)
            newest = _up_to_date(home, store, record)
            yield Found(newest, _with_plan(home, progress, newest.job))
        except SafetrainError as error:
            log.warning("job %d: it is set aside: %s", record.job.id, error)
            job = dataclasses.replace(record.job, state=JobState.FAILED, cause=finding_of(error))
            yield Found(record, job, is_readable=False)


def _up_to_date(home: Home, store: JobStore, record: Record) -> Record:
    """Return the record, or one rebuilt of the events where the database lost its end."""
    job = record.job
    if job.state in FINAL:
        return record
    rebuilt = rebuild(home.run(job.id), job.id, record.document)
    if rebuilt is None or not is_ahead(rebuilt.job, job):
        return record
    log.warning("job %d: its row is older than its events, which count", job.id)
    store.put(rebuilt)
    return store.get(job.id)


def _with_plan(home: Home, progress: JobProgress, job: Job) -> Job:
    """Return the job with the plan of its run folder, else with the last plan in its events.

    Raises Incompatible for a plan of a newer version.
    """
    run, live = home.run(job.id), job.state not in FINAL
    plan = documents.read(run.plan, Plan)
    # A job that waits and has no such file is to be planned anew.
    if plan is None and live and (job.state in _BEGUN or run.plan.exists()):
        plan = progress.of(job.id, ended=False).plan
    if plan is None:
        return job
    return dataclasses.replace(job, plan=plan, ineffective=ineffective_fallbacks(run))

"""Shared by commands: connect to the daemon, choose a job, print a job."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safetrain.connection import Daemon
from safetrain.echo import echo
from safetrain.job_folder import local_folder
from safetrain.session import Session
from safetrain.views.job import rank, summary
from safetrain_proto.v1.jobs_pb2 import Job, JobRequest, ListJobsRequest, ListJobsResponse
from safetrain_shared.errors import EXIT_CANCELLED, EXIT_FAILED, EXIT_OK, NotFound

ENDED_TO_DRAW = 100  # ended jobs to fetch, of which the newest that ever ran is drawn
EXIT_CODES = {"succeeded": EXIT_OK, "failed": EXIT_FAILED, "cancelled": EXIT_CANCELLED}


def connected(session: Session) -> Daemon:
    """Return a connection; starting a daemon is noted on standard error."""
    return Daemon(autostart=session.autostart, notify=session.note, host=session.host)


def listed(daemon: Daemon, wanted: int | None, *, ended: int = 1) -> list[Job]:
    """Return all live jobs, the newest `ended` that have ended, and `wanted`. Raises NotFound."""
    return list(listing(daemon, wanted, ended=ended).jobs)


def listing(daemon: Daemon, wanted: int | None, *, ended: int = 1) -> ListJobsResponse:
    """Return those jobs, and what the GPU is lent to. Raises NotFound."""
    found = daemon.call(daemon.jobs.List, ListJobsRequest(ended_limit=ended), again=True)
    if wanted is not None and all(job.id != wanted for job in found.jobs):
        found.jobs.append(daemon.call(daemon.jobs.Get, JobRequest(id=wanted), again=True))
    return found


def current(jobs: Iterable[Job], wanted: int | None) -> Job:
    """Return job `wanted`; else the active one, the next in the queue, or the newest.

    Raises NotFound.
    """
    known = {job.id: job for job in jobs}
    if wanted is not None:
        if wanted not in known:
            raise NotFound("job.unknown", id=wanted)
        return known[wanted]
    if not known:
        raise NotFound("job.none")
    return min(known.values(), key=rank)


def output_here(session: Session, job: Job) -> Path:
    """Return the job's folder on this machine."""
    return local_folder(job, session.host)


def show(session: Session, job: Job) -> None:
    """Print a job after a command changed it."""
    if session.json:
        from safetrain.views.json_output import message_to_json, write

        write(message_to_json(job))
        return
    for line in summary(job)[: 1 if session.quiet else None]:
        echo(line)


def job_to_draw(jobs: Iterable[Job], wanted: int | None) -> Job:
    """Return job `wanted`; else the active one, or the newest that ever trained. Raises NotFound.

    A job that never ran, or only evaluates another, is chosen only where no other job did.
    """
    known = list(jobs)
    trained = [job for job in known if job.attempt and not job.spec.evaluation.job]
    named = [job for job in known if job.id == wanted]
    return current(named or trained or known, wanted)

"""What several commands do alike: connect, pick the job that is meant, tell how it ended."""

from __future__ import annotations

from collections.abc import Iterable

from safetrain.connection import Daemon
from safetrain.echo import echo
from safetrain.session import Session
from safetrain.views.job import name_of, summary
from safetrain_proto.v1.jobs_pb2 import Job, JobRequest, ListJobsRequest
from safetrain_shared.errors import EXIT_CANCELLED, EXIT_FAILED, EXIT_OK, NotFound

AT_WORK = ("running", "checking", "interrupted")
ENDED_TO_DRAW = 100  # the newest with something to show is among so many that have ended
EXIT_CODES = {"succeeded": EXIT_OK, "failed": EXIT_FAILED, "cancelled": EXIT_CANCELLED}


def connected(session: Session) -> Daemon:
    """The daemon; that one is being started is said on standard error."""
    return Daemon(autostart=session.autostart, say=session.note)


def listed(daemon: Daemon, wanted: int | None, *, ended: int = 1) -> list[Job]:
    """All live jobs and the newest `ended` that have ended, and the wanted one. Raises NotFound."""
    jobs = list(daemon.call(daemon.jobs.List, ListJobsRequest(ended_limit=ended), again=True).jobs)
    if wanted is not None and all(job.id != wanted for job in jobs):
        jobs.append(daemon.call(daemon.jobs.Get, JobRequest(id=wanted), again=True))
    return jobs


def current(jobs: Iterable[Job], wanted: int | None) -> Job:
    """The job of that id; else the one at work, the next in the queue, or the newest.

    Raises NotFound.
    """
    known = {job.id: job for job in jobs}
    if wanted is not None:
        if wanted not in known:
            raise NotFound("job.unknown", id=wanted)
        return known[wanted]
    if not known:
        raise NotFound("job.none")
    return min(known.values(), key=_rank)


def _rank(job: Job) -> tuple[int, int, int]:
    if name_of(job) in AT_WORK:
        return 0, 0, job.id
    if job.queue_position:
        return 1, job.queue_position, job.id
    return 2, 0, -job.id


def show(session: Session, job: Job) -> None:
    """A job after something was done to it."""
    if session.json:
        from safetrain.views.json_output import message_to_json, write

        write(message_to_json(job))
        return
    for line in summary(job)[: 1 if session.quiet else None]:
        echo(line)


def job_to_draw(jobs: Iterable[Job], wanted: int | None) -> Job:
    """The job of that id; else the one at work, or the newest that ever was. Raises NotFound.

    One that only waits is passed over where another has something to show.
    """
    known = list(jobs)
    return current([job for job in known if job.attempt or job.id == wanted] or known, wanted)

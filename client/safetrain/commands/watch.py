"""`safetrain watch [JOB]`: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys

import click

from safetrain.commands.common import EXIT_CODES, connected, current
from safetrain.connection import Daemon
from safetrain.follow import Follower
from safetrain.render.lines import line
from safetrain.session import Session, command
from safetrain.whole import JOB, Whole
from safetrain_proto.v1.jobs_pb2 import Job, ListJobsRequest
from safetrain_shared.errors import EXIT_FAILED, EXIT_OK
from safetrain_shared.events import Event
from safetrain_shared.i18n import translate as _
from safetrain_shared.jobs import JobState


@command(
    _(
        "Follows a training live. On a terminal: one screen, q leaves it and the training goes "
        "on. Elsewhere: one line an event. The exit code tells how the job ended."
    ),
    example="safetrain watch\nsafetrain watch 3 --json",
)
@click.argument("job", type=JOB, required=False)
@click.option(
    "--refresh",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help=_("How often the screen is drawn anew."),
)
@click.option(
    "--after", metavar="SEQ", type=Whole(0), default=0, help=_("Only events after this number.")
)
def watch(session: Session, job: int | None, refresh: float, after: int) -> int:
    """Follows the job to its end, across restarts of the daemon."""
    with connected(session) as daemon:
        jobs = daemon.call(daemon.jobs.List, ListJobsRequest(), again=True).jobs
        return attend(session, daemon, current(jobs, job), refresh=refresh, after=after)


def attend(
    session: Session,
    daemon: Daemon,
    job: Job,
    *,
    refresh: float = 1.0,
    after: int = 0,
    quiet: bool = False,
) -> int:
    """Follows a job to its end and returns the exit code that tells it; `quiet` shows nothing."""
    if not (session.json or quiet) and sys.stdout.isatty() and sys.stdin.isatty():
        from safetrain.render.live import live

        return _code(live(daemon, job, refresh))
    follower = Follower(daemon, job.id, after)
    tell = _silent if quiet else _as_json if session.json else _as_line
    for events, _up_to_date in follower.batches():
        for event in events:
            tell(event)
    if quiet and follower.state:
        session.note(_("Job {id}: {state}").format(id=job.id, state=follower.state))
    return _code(follower.state)


def _silent(event: Event) -> None:
    del event


def _as_line(event: Event) -> None:
    click.echo(line(event))


def _as_json(event: Event) -> None:
    from safetrain.render.plain import event_to_json, write

    write(event_to_json(event))


def _code(state: JobState | None) -> int:
    """None: the user left while the job goes on."""
    return EXIT_OK if state is None else EXIT_CODES.get(state, EXIT_FAILED)

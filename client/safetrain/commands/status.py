"""`safetrain status [JOB]`: show one job and the queue."""

from __future__ import annotations

import click

from safetrain.commands.common.job_selection import connected, current, listing
from safetrain.connection import Daemon
from safetrain.echo import echo
from safetrain.int64 import JOB
from safetrain.session import Session, command
from safetrain.views.job import name_of, summary
from safetrain.views.lent import lent_lines
from safetrain_proto.v1.jobs_pb2 import Job
from safetrain_shared.i18n import translate as _


@command(
    _("Shows one job at a glance: the one at work, or the one you name."),
    example="safetrain status\nsafetrain status 3 --json",
)
@click.argument("job", type=JOB, required=False)
def status(session: Session, job: int | None) -> None:
    """Print the job and the queue behind it."""
    with connected(session) as daemon:
        found = listing(daemon, job)
        lent = [] if session.terse else lent_lines(found)
        if lent and not found.jobs:
            echo(lent[0])
            return
        chosen = current(found.jobs, job)
        interrupted = "" if session.terse else _interrupted(daemon, chosen)
    if session.json:
        from safetrain.views.json_output import message_to_json, write

        write(message_to_json(chosen))
        return
    lines = lent + summary(chosen, found.jobs, interrupted=interrupted)
    for line in lines[: 1 if session.quiet else None]:
        echo(line)


def _interrupted(daemon: Daemon, job: Job) -> str:
    """Return the interruptions of a job; its events are read only if there were any."""
    if job.attempt < 2 and name_of(job) != "interrupted":
        return ""
    from safetrain.follower import events_so_far
    from safetrain.views.interruptions import interruptions
    from safetrain_shared.history import history

    return interruptions(history(events_so_far(daemon, job.id)))

"""`safetrain jobs`: list live jobs and the newest ended ones."""

from __future__ import annotations

import click

from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.session import Session, command
from safetrain.views.job import table
from safetrain_proto.v1.jobs_pb2 import ListJobsRequest
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import sentence

_ENDED = 20  # ended jobs shown without --all


@command(
    _("Lists the jobs, the newest last: all that are live, and the newest that have ended."),
    example="safetrain jobs\nsafetrain jobs --all",
)
@click.option("--all", "every", is_flag=True, help=_("Every job; JSON always has all."))
def jobs(session: Session, every: bool) -> None:
    """Print one line per job, and how many are not shown."""
    request = ListJobsRequest(ended_limit=0 if every or session.json else _ENDED)
    with connected(session) as daemon:
        found = daemon.call(daemon.jobs.List, request, again=True)
    if session.json:
        from safetrain.views.json_output import message_to_json, write

        write([message_to_json(job) for job in found.jobs])
    elif not found.jobs:
        echo(sentence("job.none", {}))
    else:
        for line in table(found.jobs):
            echo(line)
        if found.left_out:
            echo(sentence("job.left_out", {"count": found.left_out}))

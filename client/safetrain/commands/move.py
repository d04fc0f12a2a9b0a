"""`safetrain move JOB --first | --last`: change a job's place in the queue."""

from __future__ import annotations

import click

from safetrain.commands.common.job_selection import connected, show
from safetrain.int64 import JOB
from safetrain.session import Session, command
from safetrain_proto.v1.jobs_pb2 import MoveJobRequest
from safetrain_shared.i18n import translate as _


@command(
    _("Moves a waiting job to the front or the end of the queue."),
    example="safetrain move 3 --first",
)
@click.argument("job", type=JOB)
@click.option("--first/--last", default=True, help=_("The front (default), or the end."))
def move(session: Session, job: int, first: bool) -> None:
    """Call the daemon and print the job."""
    with connected(session) as daemon:
        show(session, daemon.call(daemon.jobs.Move, MoveJobRequest(id=job, first=first)))

"""`safetrain retry JOB`: a failed or cancelled job again."""

from __future__ import annotations

import click

from safetrain.commands.common.job_selection import connected, show
from safetrain.int64 import JOB
from safetrain.session import Session, command
from safetrain_proto.v1.jobs_pb2 import JobRequest
from safetrain_shared.i18n import translate as _


@command(
    _("Tries a failed or cancelled job again, from its last checkpoint."),
    example="safetrain retry 3",
)
@click.argument("job", type=JOB)
def retry(session: Session, job: int) -> None:
    """Call the daemon and print the job."""
    with connected(session) as daemon:
        show(session, daemon.call(daemon.jobs.Retry, JobRequest(id=job)))

"""`safetrain cancel JOB`: end a job at its next step, with a checkpoint."""

from __future__ import annotations

import click

from safetrain.commands.common.job_selection import connected, show
from safetrain.int64 import JOB
from safetrain.session import Session, command
from safetrain_proto.v1.jobs_pb2 import JobRequest
from safetrain_shared.i18n import translate as _


@command(
    _("Ends a job at its next step, with a checkpoint."),
    example="safetrain cancel 3",
)
@click.argument("job", type=JOB)
def cancel(session: Session, job: int) -> None:
    """Call the daemon and print the job."""
    with connected(session) as daemon:
        show(session, daemon.call(daemon.jobs.Cancel, JobRequest(id=job)))

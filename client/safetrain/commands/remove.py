"""`safetrain remove JOB [--files]`: delete the record of an ended job, optionally its files."""

from __future__ import annotations

import click

from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.int64 import JOB
from safetrain.session import Session, command
from safetrain.views.job import short_path
from safetrain.views.json_output import write
from safetrain_proto.v1.jobs_pb2 import RemoveJobRequest
from safetrain_shared.i18n import translate as _


@command(
    _("Forgets a job that has ended. Its output folder stays, unless you say --files."),
    example="safetrain remove 3\nsafetrain remove 3 --files",
)
@click.argument("job", type=JOB)
@click.option(
    "--files", is_flag=True, help=_("Delete what the job wrote to its output folder, too.")
)
def remove(session: Session, job: int, files: bool) -> None:
    """Remove the job and print the files that were kept."""
    with connected(session) as daemon:
        done = daemon.call(daemon.jobs.Remove, RemoveJobRequest(id=job, files=files))
    if session.json:
        write({"id": job, "kept": list(done.kept)})
        return
    echo(_("Job {id} is forgotten.").format(id=job))
    if done.kept:
        echo(_("Left as they are, since safetrain did not write them:"))
        for path in done.kept:
            echo(f"  {short_path(path)}")

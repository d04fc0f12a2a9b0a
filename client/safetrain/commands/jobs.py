"""`safetrain jobs`: all jobs."""

from __future__ import annotations

from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.session import Session, command
from safetrain.views.job import table
from safetrain_proto.v1.jobs_pb2 import ListJobsRequest
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import sentence


@command(_("Lists all jobs, the newest last."), example="safetrain jobs")
def jobs(session: Session) -> None:
    """Prints one line a job."""
    with connected(session) as daemon:
        found = daemon.call(daemon.jobs.List, ListJobsRequest(), again=True).jobs
    if session.json:
        from safetrain.views.json_output import message_to_json, write

        write([message_to_json(job) for job in found])
    elif not found:
        echo(sentence("job.none", {}))
    else:
        for line in table(found):
            echo(line)

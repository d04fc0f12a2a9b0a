"""`safetrain jobs`: list live jobs and the newest ended ones."""

from __future__ import annotations

from dataclasses import replace

import click

from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.session import Session, command
from safetrain.views.job import table
from safetrain.views.lent import lent_lines
from safetrain_proto.v1.jobs_pb2 import ListJobsRequest, ListJobsResponse
from safetrain_shared.errors import EXIT_OK, SafetrainError
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import sentence

_ENDED = 20  # ended jobs shown without --all


@command(
    _("Lists the jobs, the newest last: all that are live, and the newest that have ended."),
    example="safetrain jobs\nsafetrain jobs --all",
)
@click.option("--all", "every", is_flag=True, help=_("Every job; JSON always has all."))
@click.option(
    "--all-hosts", is_flag=True, help=_("Those of every machine of `safetrain hosts`, too.")
)
def jobs(session: Session, every: bool, all_hosts: bool) -> int:
    """Print one line per job, and how many are not shown."""
    request = ListJobsRequest(ended_limit=0 if every or session.json else _ENDED)
    if all_hosts:
        return _of_all_hosts(session, request)
    _show(session, _listed(session, request))
    return EXIT_OK


def _of_all_hosts(session: Session, request: ListJobsRequest) -> int:
    """Print the jobs of each machine below its name. One out of reach does not hide the others."""
    from safetrain.views.json_output import message_to_json, write
    from safetrain_shared.remote.host_list import read

    code, shown = EXIT_OK, []
    for name in ("", *read()):
        try:
            found = _listed(replace(session, host=name), request)
        except SafetrainError as error:
            session.note(f"safetrain: {sentence(error.code, error.args_by_name)}")
            code = error.exit_code
            continue
        if session.json:
            shown.append({"host": name, "jobs": [message_to_json(job) for job in found.jobs]})
            continue
        echo(name or _("this machine"))
        _show(session, found)
    if session.json:
        write(shown)
    return code


def _listed(session: Session, request: ListJobsRequest) -> ListJobsResponse:
    with connected(session) as daemon:
        return daemon.call(daemon.jobs.List, request, again=True)


def _show(session: Session, found: ListJobsResponse) -> None:
    if session.json:
        from safetrain.views.json_output import message_to_json, write

        write([message_to_json(job) for job in found.jobs])
        return
    for line in lent_lines(found):
        echo(line)
    if not found.jobs:
        echo(sentence("job.none", {}))
    else:
        for line in table(found.jobs):
            echo(line)
        if found.left_out:
            echo(sentence("job.left_out", {"count": found.left_out}))

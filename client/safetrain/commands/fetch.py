"""`safetrain fetch JOB`: bring a job's results from another machine to this one."""

from __future__ import annotations

from pathlib import Path

import click

from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.inputs import absolute
from safetrain.int64 import JOB
from safetrain.remote.fetch import fetch as bring
from safetrain.session import Session, command
from safetrain.terminal.status_line import StatusLine
from safetrain.views.job import short_path
from safetrain.views.json_output import write
from safetrain_shared.i18n import translate as _


@command(
    _(
        "Brings adapter, metrics, plots and report of a job to this machine: each file whole or "
        "not at all, and again only what changed."
    ),
    example="safetrain fetch 3 --host studio --output farense",
)
@click.argument("job", type=JOB)
@click.option("--output", metavar="FOLDER", help=_("Where to; by default job-JOB in this folder."))
def fetch(session: Session, job: int, output: str | None) -> None:
    """Print the files that changed."""
    folder = Path(absolute(output or f"job-{job}"))
    status_line = StatusLine(silent=session.terse)
    with connected(session) as daemon:
        try:
            changed = bring(daemon, job, folder, lambda done: status_line.show("fetching", done))
        finally:
            status_line.clear()
    if session.json:
        write({"folder": str(folder), "changed": [str(path) for path in changed]})
        return
    for path in changed:
        echo(short_path(str(path)))
    if not changed:
        session.note(_("{folder} is up to date.").format(folder=short_path(str(folder))))

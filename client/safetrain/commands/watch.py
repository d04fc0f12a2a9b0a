"""`safetrain watch [JOB]`: follow a job, as a live view on a terminal, as lines elsewhere."""

from __future__ import annotations

import click

from safetrain.commands.common.follow_job import Reporting, follow_to_end, report_options
from safetrain.commands.common.job_selection import connected, current, listed
from safetrain.int64 import JOB, Int64
from safetrain.session import Session, command
from safetrain_shared.i18n import translate as _


@command(
    _(
        "Follows a training live. On a terminal: one screen, q leaves it and the training goes "
        "on. Elsewhere: one line an event. The exit code tells how the job ended."
    ),
    example="safetrain watch\nsafetrain watch 3 --json\nsafetrain watch --report-to tensorboard",
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
    "--after", metavar="SEQ", type=Int64(0), default=0, help=_("Only events after this number.")
)
@report_options
def watch(
    session: Session,
    job: int | None,
    refresh: float,
    after: int,
    report_to: str | None,
    log_dir: str | None,
) -> int:
    """Follow the job to its end, across restarts of the daemon."""
    reporting = Reporting(report_to, log_dir)
    reporting.require()
    with connected(session) as daemon:
        jobs = listed(daemon, job)
        chosen = current(jobs, job)
        return follow_to_end(
            session, daemon, chosen, refresh=refresh, after=after, reporting=reporting
        )

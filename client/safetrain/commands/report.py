"""`safetrain report [JOB]`: the HTML report of a training."""

from __future__ import annotations

from pathlib import Path

import click

from safetrain.commands.common.job_selection import (
    ENDED_TO_DRAW,
    connected,
    job_to_draw,
    listed,
)
from safetrain.echo import echo
from safetrain.inputs import absolute
from safetrain.int64 import JOB
from safetrain.report.make_report import default_path, default_questions, make_report
from safetrain.sample_questions import SampleQuestion
from safetrain.session import Session, command
from safetrain.views.job import ACTIVE, name_of, short_path
from safetrain.views.json_output import write
from safetrain_shared.atomic_write import write_files
from safetrain_shared.i18n import translate as _


@command(
    _(
        "Writes a page about a training: settings and why, machine, data, curves, checkpoints, "
        "what happened, and the command to run it again. It opens from the file, without a "
        "network. Also while the job trains."
    ),
    example=(
        "safetrain report\n"
        'safetrain report 3 --output farense.html --ask "Quem é o rival principal?"'
    ),
)
@click.argument("job", type=JOB, required=False)
@click.option(
    "--output",
    metavar="FILE",
    help=_("Where to; by default plots/report.html in the job's folder."),
)
@click.option(
    "--ask",
    "questions",
    metavar="QUESTION",
    multiple=True,
    help=_(
        "What base model and adapter are to answer, again for more; by default a few questions of "
        "the validation data, while nothing trains."
    ),
)
@click.option("--no-answers", is_flag=True, help=_("Leave out the sample answers."))
def report(
    session: Session,
    job: int | None,
    output: str | None,
    questions: tuple[str, ...],
    no_answers: bool,
) -> None:
    """Write the report and print its path."""
    with connected(session) as daemon:
        jobs = listed(daemon, job, ended=ENDED_TO_DRAW)
        chosen = job_to_draw(jobs, job)
        asked = [SampleQuestion(question) for question in questions]
        if not asked and chosen.step and not any(name_of(one) in ACTIVE for one in jobs):
            asked = default_questions(chosen, session.host)
        html = make_report(daemon, chosen, [] if no_answers else asked, session.note)
    path = Path(absolute(output)) if output else default_path(chosen, session.host)
    write_files({path: html.encode()})
    if session.json:
        write({"id": chosen.id, "file": str(path)})
    else:
        echo(short_path(str(path)))

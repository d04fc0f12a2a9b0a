"""`safetrain evaluate [JOB]`: did it help? Base and adapter answer the same questions."""

from __future__ import annotations

import click

from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.inputs import absolute
from safetrain.int64 import JOB, Int64
from safetrain.session import Session, command
from safetrain.terminal.status_line import StatusLine
from safetrain.views.evaluation import verdict_lines
from safetrain.views.json_output import message_to_json, write
from safetrain_proto.v1.evaluations_pb2 import EvaluateRequest
from safetrain_shared.errors import EXIT_FAILED, EXIT_OK, EXIT_UNCLEAR
from safetrain_shared.i18n import translate as _

_EXIT_CODES = {"better": EXIT_OK, "worse": EXIT_FAILED, "unclear": EXIT_UNCLEAR}


@command(
    _(
        "Asks base model and adapter the same questions, scores the answers, and says whether the "
        "training made it better, worse, or whether it cannot be told with so few questions. "
        "Without --questions: those of the job's validation data. The exit code is 0 for better, "
        "1 for worse, 6 where it cannot be told."
    ),
    example="safetrain evaluate\nsafetrain evaluate 3 --questions dados/questions.jsonl",
)
@click.argument("job", type=JOB, required=False)
@click.option(
    "--questions",
    metavar="FILE",
    help=_("A question set, JSON lines: question, answer and match; or held-out training data."),
)
@click.option("--checkpoint", default="", help=_("A checkpoint's folder name; else the best."))
@click.option(
    "--max-tokens",
    type=Int64(0),
    default=0,
    help=_("Of an answer; 0: half as many again as the longest of the training data."),
)
@click.option("--limit", type=Int64(0), default=0, help=_("At most so many questions; 0: all."))
@click.option("--wait", is_flag=True, help=_("Wait for the GPU where another job holds it."))
def evaluate(
    session: Session,
    job: int | None,
    questions: str | None,
    checkpoint: str,
    max_tokens: int,
    limit: int,
    wait: bool,
) -> int:
    """Prints the verdict, and which questions were won and lost."""
    request = EvaluateRequest(
        job_id=job or 0,
        questions=absolute(questions) if questions else "",
        checkpoint=checkpoint,
        max_tokens=max_tokens,
        limit=limit,
        wait=wait,
    )
    status_line, judgement = StatusLine(silent=session.terse, log=True), ""
    with connected(session, files_of="evaluate") as daemon:
        for event in daemon.stream(daemon.evaluations.Run, request):
            if event.HasField("progress"):
                status_line.show(event.progress.phase, event.progress.done)
                continue
            status_line.clear()
            judgement = event.evaluation.verdict.judgement
            if session.json:
                write(message_to_json(event.evaluation))
            else:
                echo("\n".join(verdict_lines(event.evaluation)))
    return _EXIT_CODES.get(judgement, EXIT_UNCLEAR)

"""`safetrain evaluate [JOB]`: did it help? Base and adapter answer the same questions."""

from __future__ import annotations

import click

from safetrain.commands.common.job_selection import connected
from safetrain.connection import Daemon
from safetrain.echo import echo
from safetrain.inputs import absolute
from safetrain.int64 import JOB, Int64
from safetrain.remote.local_files import LocalFiles
from safetrain.session import Session, command
from safetrain.terminal.status_line import StatusLine
from safetrain.views.evaluation import verdict_lines
from safetrain.views.job import short_path
from safetrain.views.json_output import message_to_json, write
from safetrain.views.labels import sign
from safetrain_proto.v1.evaluations_pb2 import EvaluateRequest, Evaluation, PromoteRequest
from safetrain_shared.errors import EXIT_FAILED, EXIT_OK, EXIT_UNCLEAR, Unreachable
from safetrain_shared.findings import Status
from safetrain_shared.i18n import translate as _

_EXIT_CODES = {"better": EXIT_OK, "worse": EXIT_FAILED, "unclear": EXIT_UNCLEAR}
_BY_TASK = "task"


@command(
    _(
        "Asks base model and adapter the same questions, scores the answers, and says whether the "
        "training made it better, worse, or whether it cannot be told with so few questions. "
        "It is a job of its own, which waits for the GPU and goes on after a kill. Without "
        "--questions: those that the job was submitted with, else the questions.jsonl beside the "
        "training data, else the validation data. "
        "The exit code is 0 for better, 1 for worse, 6 where it cannot be told."
    ),
    example=(
        "safetrain evaluate\nsafetrain evaluate 3 --questions dados/questions.jsonl --general\n"
        "safetrain evaluate 3 --checkpoints --promote"
    ),
)
@click.argument("job", type=JOB, required=False)
@click.option(
    "--questions",
    metavar="FILE",
    help=_("A question set, JSON lines: question, answer and match; or held-out training data."),
)
@click.option("--checkpoint", default="", help=_("A checkpoint's folder name; else the best."))
@click.option(
    "--checkpoints",
    is_flag=True,
    help=_("Every kept checkpoint: half of the questions choose, the others are reported."),
)
@click.option(
    "--exported", metavar="FOLDER", help=_("An exported model in place of the job's adapter.")
)
@click.option(
    "--general", is_flag=True, help=_("What it forgot: general questions and neutral text, too.")
)
@click.option(
    "--promote",
    metavar="WHICH",
    is_flag=False,
    flag_value=_BY_TASK,
    help=_(
        "Put a checkpoint's adapter in adapters/: the one that did best (task), the one with the "
        "lowest validation loss (best-loss), or the one you name."
    ),
)
@click.option(
    "--max-tokens",
    type=Int64(0),
    default=0,
    help=_("Of an answer; 0: half as many again as the longest of the training data."),
)
@click.option(
    "--tasks",
    metavar="NAME,NAME",
    default="",
    help=_("Benchmarks of lm-evaluation-harness for base and adapter, too: safetrain[tasks]."),
)
@click.option("--limit", type=Int64(0), default=0, help=_("At most so many questions; 0: all."))
def evaluate(
    session: Session,
    job: int | None,
    questions: str | None,
    checkpoint: str,
    checkpoints: bool,
    exported: str | None,
    general: bool,
    promote: str | None,
    max_tokens: int,
    tasks: str,
    limit: int,
) -> int:
    """Print the verdict, and the questions that were won and lost. The exit code is 0, 1 or 6, see
    the help.
    """
    with connected(session) as daemon:
        if promote not in (None, _BY_TASK):
            _promote(session, daemon, job or 0, str(promote))
            return EXIT_OK
        local = LocalFiles(daemon)
        request = EvaluateRequest(
            job_id=job or 0,
            questions=local.there(absolute(questions)) if questions else "",
            checkpoint=checkpoint,
            checkpoints=checkpoints or bool(promote),
            folder=local.model_there(absolute(exported)) if exported else "",
            general=general,
            max_tokens=max_tokens,
            limit=limit,
            tasks=[name.strip() for name in tasks.split(",") if name.strip()],
        )
        evaluation = local.shown(_followed(session, daemon, request))
        if session.json:
            write(message_to_json(evaluation))
        else:
            echo("\n".join(verdict_lines(evaluation)))
        if promote:
            _promote(session, daemon, evaluation.job_id, promote)
    return _EXIT_CODES.get(evaluation.verdict.judgement, EXIT_UNCLEAR)


def _followed(session: Session, daemon: Daemon, request: EvaluateRequest) -> Evaluation:
    """Return the evaluation once it is done; print its progress on standard error meanwhile."""
    line, own, found = StatusLine(silent=session.terse, log=True), 0, Evaluation()
    try:
        for event in daemon.stream(daemon.evaluations.Run, request):
            if event.HasField("progress"):
                own = event.progress.job_id
                line.show(event.progress.phase, event.progress.done)
            else:
                found = event.evaluation
    except (KeyboardInterrupt, Unreachable):
        if own:
            text = _("Job {id} goes on. Watch it with: safetrain watch {id}")
            session.note(text.format(id=own))
        raise
    finally:
        line.clear()
    return found


def _promote(session: Session, daemon: Daemon, job: int, which: str) -> None:
    done = daemon.call(
        daemon.evaluations.Promote, PromoteRequest(job_id=job, checkpoint=which), again=True
    )
    if session.json:
        write(message_to_json(done))
        return
    text = _("{path} now holds {checkpoint}. Back again with: {command}")
    text = text.format(
        path=short_path(done.path),
        checkpoint=done.checkpoint,
        command=f"safetrain evaluate {job or ''} --promote {done.before or 'best-loss'}".replace(
            "  ", " "
        ),
    )
    echo(f"{sign(Status.PASSED)} {text}")

"""Shared by `ask` and `chat`: options, and printing an answer as it arrives."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from safetrain.asking import ask
from safetrain.connection import Daemon
from safetrain.echo import echo
from safetrain.inputs import model as model_path
from safetrain.int64 import Int64
from safetrain.remote.local_files import LocalFiles
from safetrain.session import Session
from safetrain.terminal.status_line import StatusLine
from safetrain.views.answer import Answer, numbers, source
from safetrain.views.json_output import write
from safetrain_proto.v1.answers_pb2 import AskRequest, Message
from safetrain_shared.i18n import translate as _
from safetrain_shared.questions import DEFAULT_MAX_TOKENS

F = TypeVar("F", bound=Callable[..., Any])


def model_options(function: F) -> F:
    """Add the options that choose model and sampling; `request_of` reads all but `--system`."""
    options = [
        click.option("--job", type=Int64(0), default=0, help=_("The job whose adapter answers.")),
        click.option(
            "--checkpoint", default="", help=_("A checkpoint's folder name; else the best.")
        ),
        click.option("--model", default="", help=_("With no job: which base model.")),
        click.option("--base", is_flag=True, help=_("The base model, without the adapter.")),
        click.option(
            "--max-tokens",
            type=Int64(1),
            default=DEFAULT_MAX_TOKENS,
            show_default=True,
            help=_("The longest answer, in tokens."),
        ),
        click.option(
            "--temperature",
            type=click.FloatRange(0, 5),
            default=0.0,
            show_default=True,
            help=_("0 always takes the likeliest token."),
        ),
        click.option(
            "--top-p",
            type=click.FloatRange(0, 1),
            default=0.0,
            help=_("Only the likeliest share; 0: all."),
        ),
        click.option("--system", default="", help=_("A system message before the question.")),
        click.option("--seed", type=Int64(0), help=_("The same seed draws the same answer.")),
        click.option(
            "--keep-alive",
            "keep_alive_seconds",
            type=click.FloatRange(0),
            metavar="SECONDS",
            help=_("How long the model stays loaded after its answer; by default 300 seconds."),
        ),
        click.option(
            "--wait", is_flag=True, help=_("Wait for the GPU where another job holds it.")
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def system_messages(system: str) -> list[Message]:
    """Return the system message as a list; [] without one."""
    return [Message(role="system", content=system)] if system else []


def request_of(messages: list[Message], *, job: int, model: str, **given: Any) -> AskRequest:
    """Return the request that the options describe."""
    path = model_path(model) if model else ""
    return AskRequest(messages=messages, job_id=job, model=path, **given)


def show(session: Session, daemon: Daemon, request: AskRequest, *, brief: bool = False) -> Answer:
    """Print the answer as it arrives, and its source and speed on standard error; return it.

    `brief`: print only the text. Raises SafetrainError.
    """
    status_line, answer = StatusLine(silent=session.terse), Answer()
    request.model = LocalFiles(daemon).model_there(request.model)
    for event in ask(daemon, request):
        status_line.clear()
        begun = bool(answer.parts)
        answer.take(event)
        if event.HasField("waiting"):
            status_line.show(event.waiting)
        elif event.HasField("source") and begun and not session.json:
            echo()
            session.note(_("The connection was lost, and the answer begins anew:"))
        elif event.HasField("source") and not (session.json or brief):
            for line in source(event.source):
                session.note(line)
        elif event.HasField("text") and not session.json:
            echo(event.text, nl=False)
            sys.stdout.flush()
    status_line.clear()
    if session.json:
        write(answer.to_json())
        return answer
    echo()
    if answer.done.cut or not brief:
        session.note(numbers(answer.done))
    return answer

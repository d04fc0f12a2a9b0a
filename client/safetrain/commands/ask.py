"""`safetrain ask "…"`: ask the model in training, or a finished job's adapter."""

from __future__ import annotations

import sys
from typing import Any

import click

from safetrain.commands.common.ask_options import model_options, request_of, show, system_messages
from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.session import Session, command
from safetrain_proto.v1.answers_pb2 import Message
from safetrain_shared.errors import InvalidInput
from safetrain_shared.i18n import translate as _


@command(
    _(
        "Asks the model a question and prints the answer as it comes. While a job trains, its "
        "model answers with the weights as they are; else the newest finished job's best "
        "adapter; with no job at all, the base model."
    ),
    example=(
        'safetrain ask "Qual foi a melhor classificação do Farense?"\n'
        'safetrain ask --compare "Quem é o rival principal?"'
    ),
)
@click.argument("question", nargs=-1, required=True, metavar="QUESTION")
@model_options
@click.option("--compare", is_flag=True, help=_("First the base model, then the adapter."))
def ask(
    session: Session,
    question: tuple[str, ...],
    system: str,
    compare: bool,
    base: bool,
    **given: Any,
) -> None:
    """Print one answer, or with --compare two; `-` reads the question from standard input."""
    if len(question) > 1:
        raise InvalidInput("client.quote_the_question", text=" ".join(question))
    text = sys.stdin.read() if question == ("-",) else question[0]
    if not text.strip():
        raise InvalidInput("client.question_empty")
    messages = [*system_messages(system), Message(role="user", content=text)]
    with connected(session) as daemon:
        for without in (True, False) if compare else (base,):
            if compare and not session.json:
                echo(_("Base model:") if without else "\n" + _("With the adapter:"))
            show(session, daemon, request_of(messages, base=without, **given))

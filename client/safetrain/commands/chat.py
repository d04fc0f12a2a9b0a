"""`safetrain chat`: a conversation with the model, turn by turn."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Any

from safetrain.commands.common.ask_options import model_options, opening, request_of, show
from safetrain.commands.common.job_selection import connected
from safetrain.connection import Daemon
from safetrain.echo import echo
from safetrain.session import Session, command
from safetrain_proto.v1.answers_pb2 import Message
from safetrain_shared.errors import SafetrainError
from safetrain_shared.i18n import translate as _

_PROMPT = "> "
_ORDER = re.compile(r"/\w*\??")
_ANEW = ("/new", "/reset", "/limpar")
_LEAVE = ("/bye", "/exit", "/quit", "/sair")


@command(
    _(
        "Talks with the model, which remembers what was said before. /reset begins anew, Ctrl-C "
        "stops an answer, Ctrl-D ends. Nothing is kept."
    ),
    example="safetrain chat\nsafetrain chat --job 3 --system 'Responde em duas frases.'",
)
@model_options
def chat(session: Session, system: str, **given: Any) -> None:
    """Reads questions from standard input, one a line, until it ends."""
    said = opening(system)
    if sys.stdin.isatty():
        _edit_lines()
        session.note(_help())
    with connected(session) as daemon:
        while (question := _read()) is not None:
            if question in _LEAVE:
                return
            if question in _ANEW:
                said = opening(system)
                session.note(_("What was said is forgotten."))
            elif _ORDER.fullmatch(question):
                session.note(_help())
            elif question:
                said = _turn(session, daemon, said, question, given)


def _help() -> str:
    return _(
        "/reset (or /limpar) begins anew, Ctrl-C stops an answer, /bye (or /sair) ends. "
        "Say, for example: {question}"
    ).format(question="Qual foi a melhor classificação do Farense?")


def _edit_lines() -> None:
    """Arrow keys and what was typed before, in `input`; a Python may be built without."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401


def _read() -> str | None:
    """The next line, None at the end. Standard output is for answers where it is no terminal."""
    prompt = _PROMPT if sys.stdin.isatty() else ""
    if prompt and not sys.stdout.isatty():
        echo(prompt, nl=False, err=True)
        prompt = ""
    try:
        return input(prompt).strip()
    except EOFError:
        if sys.stdin.isatty():
            echo(err=True)
        return None


def _turn(
    session: Session, daemon: Daemon, said: list[Message], question: str, given: dict[str, Any]
) -> list[Message]:
    """One question and its answer; one that is refused or stopped is not remembered."""
    from safetrain.error_output import report

    asked = [*said, Message(role="user", content=question)]
    brief = any(message.role == "assistant" for message in said)
    try:
        answer = show(session, daemon, request_of(asked, **given), brief=brief)
    except KeyboardInterrupt:
        echo()
        session.note(_("Stopped; this question is forgotten."))
        return said
    except SafetrainError as error:
        report(error, as_json=session.json)
        return said
    return [*asked, Message(role="assistant", content="".join(answer.parts))]

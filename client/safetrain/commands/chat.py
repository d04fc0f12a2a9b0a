"""`safetrain chat`: a conversation with the model in the terminal."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Any

from safetrain.commands.common.ask_options import model_options, request_of, show, system_messages
from safetrain.commands.common.job_selection import connected
from safetrain.connection import Daemon
from safetrain.echo import echo
from safetrain.session import Session, command
from safetrain_proto.v1.answers_pb2 import Message
from safetrain_shared.errors import SafetrainError
from safetrain_shared.i18n import translate as _

_PROMPT = "> "
_COMMAND = re.compile(r"/\w*\??")
_RESET = ("/new", "/reset", "/limpar")
_EXIT = ("/bye", "/exit", "/quit", "/sair")


@command(
    _(
        "Talks with the model, which remembers what was said before. /reset begins anew, Ctrl-C "
        "stops an answer, Ctrl-D ends. Nothing is kept."
    ),
    example="safetrain chat\nsafetrain chat --job 3 --system 'Responde em duas frases.'",
)
@model_options
def chat(session: Session, system: str, **given: Any) -> None:
    """Read questions from standard input, one per line, until it ends."""
    history = system_messages(system)
    if sys.stdin.isatty():
        _edit_lines()
        session.note(_help())
    with connected(session) as daemon:
        while (question := _read()) is not None:
            if question in _EXIT:
                return
            if question in _RESET:
                history = system_messages(system)
                session.note(_("What was said is forgotten."))
            elif _COMMAND.fullmatch(question):
                session.note(_help())
            elif question:
                history = _turn(session, daemon, history, question, given)


def _help() -> str:
    return _(
        "/reset (or /limpar) begins anew, Ctrl-C stops an answer, /bye (or /sair) ends. "
        "Say, for example: {question}"
    ).format(question="Qual foi a melhor classificação do Farense?")


def _edit_lines() -> None:
    """Enable line editing and history in `input`, where Python was built with readline."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401


def _read() -> str | None:
    """Return the next line, None at the end. The prompt goes to terminals only."""
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
    session: Session,
    daemon: Daemon,
    history: list[Message],
    question: str,
    given: dict[str, Any],
) -> list[Message]:
    """Ask one question and return the new history; it stays as it was after an error."""
    from safetrain.error_output import report

    messages = [*history, Message(role="user", content=question)]
    brief = any(message.role == "assistant" for message in history)
    try:
        answer = show(session, daemon, request_of(messages, **given), brief=brief)
    except KeyboardInterrupt:
        echo()
        session.note(_("Stopped; this question is forgotten."))
        return history
    except SafetrainError as error:
        report(error, as_json=session.json)
        return history
    return [*messages, Message(role="assistant", content="".join(answer.parts))]

"""Errors at the terminal: one sentence in the user's language, and the exit code for it."""

from __future__ import annotations

import json
import os
import sys

import click

from safetrain.render.words import STATES
from safetrain_shared.errors import EXIT_INTERRUPTED, EXIT_PIPE, EXIT_USAGE, Broken, SafetrainError
from safetrain_shared.i18n import translate
from safetrain_shared.messages import sentence
from safetrain_shared.usage import complaint


def report(error: Exception, *, as_json: bool = False) -> int:
    """Says what went wrong on standard error and returns the exit code.

    `as_json`: what the daemon or we refuse is one JSON object, as `safetraind --json` prints it.
    """
    if isinstance(error, click.UsageError):
        _write(complaint("safetrain", error))
        return EXIT_USAGE
    if isinstance(error, click.Abort):
        return EXIT_INTERRUPTED
    if isinstance(error, click.ClickException):
        _say(error.format_message())
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains while it exits
        return EXIT_PIPE
    if isinstance(error, SafetrainError):
        text = explained(error)
        _write(_described(error, text) if as_json else f"safetrain: {text}")
        return error.exit_code
    if os.environ.get("SAFETRAIN_DEBUG"):
        raise error
    _say(sentence("client.broken", {"reason": f"{type(error).__name__}: {error}"}))
    return Broken.exit_code


def explained(error: SafetrainError, lang: str | None = None) -> str:
    """The sentence of an error; its English note where a newer daemon sent a code unknown here."""
    fallback = next(iter(getattr(error, "__notes__", ())), "")
    args = dict(error.args_by_name)
    if "state" in args:  # travels as its short name
        args["state"] = translate(STATES.get(str(args["state"]), str(args["state"])), lang)
    return sentence(error.code, args, lang=lang, fallback=fallback)


def _described(error: SafetrainError, text: str) -> str:
    body = {"code": error.code, "args": error.args_by_name, "text": text}
    return json.dumps({"error": body, "exit_code": error.exit_code}, ensure_ascii=False)


def _say(text: str) -> None:
    _write(f"safetrain: {text}")


def _write(line: str) -> None:
    try:
        click.echo(line, err=True)
    except OSError:  # standard error is gone, too
        sys.stderr = None

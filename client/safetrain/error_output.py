"""Errors at the terminal: one sentence in the user's language, and the exit code for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import click

from safetrain.echo import echo
from safetrain_shared.errors import (
    EXIT_INTERRUPTED,
    EXIT_PIPE,
    ArgValue,
    Broken,
    InvalidInput,
    SafetrainError,
)
from safetrain_shared.printable import json_line
from safetrain_shared.usage import usage_error, usage_error_text


def report(error: Exception, *, as_json: bool = False) -> int:
    """Says what went wrong on standard error and returns the exit code.

    `as_json`: as one JSON object, `{"error": {"code", "args", "text"}, "exit_code"}`.
    """
    if isinstance(error, click.Abort):
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains while it exits
        return EXIT_PIPE
    if isinstance(error, click.UsageError):
        told = _json("usage", {}, usage_error(error), error.exit_code)
        _write(told if as_json else usage_error_text("safetrain", error))
        return error.exit_code
    known = error if isinstance(error, SafetrainError) else _known(error)
    told = _json(known.code, known.args_by_name, str(known), known.exit_code)
    _write(told if as_json else f"safetrain: {known}")
    return known.exit_code


def _known(error: Exception) -> SafetrainError:
    """An error that nobody raised on purpose, as one of ours."""
    if isinstance(error, UnicodeEncodeError):  # an argument that is not UTF-8, on its way out
        text = error.object.encode("utf-8", "backslashreplace").decode()
        return InvalidInput("client.not_utf8", text=text)
    if os.environ.get("SAFETRAIN_DEBUG"):
        raise error
    return Broken("client.broken", reason=f"{type(error).__name__}: {error}")


def _json(code: str, args: Mapping[str, ArgValue], text: str, exit_code: int) -> str:
    body = {"code": code, "args": args, "text": text}
    return json_line({"error": body, "exit_code": exit_code})


def _write(line: str) -> None:
    try:
        echo(line, err=True)
    except OSError:  # standard error is gone, too
        sys.stderr = None

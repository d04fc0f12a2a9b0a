"""Prints an error as one sentence, or as JSON, and returns its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from safetrain.echo import echo
from safetrain_shared.errors import (
    EXIT_INTERRUPTED,
    EXIT_PIPE,
    ArgValue,
    Broken,
    InvalidInput,
    NotFound,
    SafetrainError,
)
from safetrain_shared.printable import json_line
from safetrain_shared.usage import usage_error, usage_error_text


def report(error: Exception, *, as_json: bool = False) -> int:
    """Print `error` on standard error and return the exit code.

    `as_json`: as one JSON object, `{"error": {"code", "args", "text"}, "exit_code"}`.
    """
    if isinstance(error, click.Abort):
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else flushing at exit fails
        return EXIT_PIPE
    if isinstance(error, click.UsageError):
        text = _json("usage", {}, usage_error(error), error.exit_code)
        _write(text if as_json else usage_error_text("safetrain", error))
        return error.exit_code
    known = error if isinstance(error, SafetrainError) else _known(error)
    text = _json(known.code, known.args_by_name, str(known), known.exit_code)
    _write(text if as_json else f"safetrain: {known}")
    return known.exit_code


def _known(error: Exception) -> SafetrainError:
    """Return the SafetrainError for an exception of another type."""
    if isinstance(error, UnicodeEncodeError):  # an argument that is not UTF-8
        text = error.object.encode("utf-8", "backslashreplace").decode()
        return InvalidInput("client.not_utf8", text=text)
    if isinstance(error, FileNotFoundError) and _is_nowhere():
        return NotFound("client.no_current_folder")
    if os.environ.get("SAFETRAIN_DEBUG"):
        raise error
    return Broken("client.broken", reason=f"{type(error).__name__}: {error}")


def _is_nowhere() -> bool:
    """Whether the current folder was deleted."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _json(code: str, args: Mapping[str, ArgValue], text: str, exit_code: int) -> str:
    body = {"code": code, "args": args, "text": text}
    return json_line({"error": body, "exit_code": exit_code})


def _write(line: str) -> None:
    try:
        echo(line, err=True)
    except OSError:  # standard error is closed too
        sys.stderr = None

"""Writes text to the terminal without control sequences, which names, models and answers may hold.

All output of the client to standard output and standard error goes through these functions.
"""

from __future__ import annotations

import sys

import click

from safetrain_shared.printable import printable_styled


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Write `text` to standard output (`err`: standard error); `nl`: with a newline after it."""
    click.echo(printable_styled(text), err=err, nl=nl)


def replace_line(text: str) -> None:
    """Replace the current line of standard error by `text`."""
    sys.stderr.write(f"\r\x1b[K{printable_styled(text)}")
    sys.stderr.flush()

"""The one way by which text leaves for the terminal: cleaned of control sequences.

Names, paths, models, templates and answers may hold anything; no caller needs to think of it.
"""

from __future__ import annotations

import sys

import click

from safetrain_shared.printable import printable_styled


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Writes a text to standard output, or to standard error, and a newline unless told not to."""
    click.echo(printable_styled(text), err=err, nl=nl)


def replace_line(text: str) -> None:
    """Writes `text` on standard error in place of the line that stands there."""
    sys.stderr.write(f"\r\x1b[K{printable_styled(text)}")
    sys.stderr.flush()

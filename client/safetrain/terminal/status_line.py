"""A progress line on standard error, replaced in place; shown on terminals only."""

from __future__ import annotations

import sys

from safetrain.echo import replace_line
from safetrain.views.labels import PHASES, word
from safetrain_shared.i18n import percent

_BAR = 20


class StatusLine:
    """The progress line of a command. `clear` it before other output; `silent`: never shown."""

    def __init__(self, *, silent: bool = False) -> None:
        self._on = sys.stderr.isatty() and not silent
        self._shown = ""

    def show(self, phase: str, done: float = -1.0) -> None:
        """Show the phase, and a bar where `done` is known: 0 to 1."""
        text = f"  … {word(PHASES, phase)}"
        if 0.0 <= done <= 1.0:
            full = round(_BAR * done)
            text += f" {'█' * full}{'░' * (_BAR - full)} {percent(done, digits=0)}"
        self._write(text)

    def clear(self) -> None:
        """Remove the line."""
        self._write("")

    def _write(self, text: str) -> None:
        if self._on and text != self._shown:
            replace_line(text)
            self._shown = text

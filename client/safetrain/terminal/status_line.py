"""A progress line on standard error: replaced in place on a terminal, else lines at times."""

from __future__ import annotations

import sys
import time

from safetrain.echo import echo, replace_line
from safetrain.views.labels import PHASES, word
from safetrain_shared.i18n import percent

_BAR = 20
_EVERY_SECONDS = 10.0  # between two lines of one phase, where standard error is no terminal


class StatusLine:
    """The progress line of a command. `clear` it before other output; `silent`: never shown."""

    def __init__(self, *, silent: bool = False, log: bool = False) -> None:
        """`log`: where standard error is no terminal, write a line for each phase and at times."""
        self._on = sys.stderr.isatty() and not silent
        self._log = log and not silent and not self._on
        self._shown = self._phase = ""
        self._logged = 0.0

    def show(self, phase: str, done: float = -1.0) -> None:
        """Show the phase, and a bar where `done` is known: 0 to 1."""
        if self._log:
            self._write_line(phase, done)
            return
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

    def _write_line(self, phase: str, done: float) -> None:
        now = time.monotonic()
        if phase == self._phase and now - self._logged < _EVERY_SECONDS:
            return
        share = f" {percent(done, digits=0)}" if 0.0 <= done <= 1.0 else ""
        echo(f"… {word(PHASES, phase)}{share}", err=True)
        self._phase, self._logged = phase, now

"""Keeps a Mac awake, and lets its display sleep, by the programs that come with macOS."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

_CAFFEINATE = "/usr/bin/caffeinate"
_PMSET = "/usr/bin/pmset"


@contextlib.contextmanager
def stay_awake(seconds: float) -> Iterator[None]:
    """Prevent idle sleep inside this context, for `seconds` at most. Does nothing except on
    macOS.
    """
    if sys.platform != "darwin":
        yield
        return
    command = [_CAFFEINATE, "-i", "-t", str(round(seconds) + 1)]
    try:
        holder = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError:  # then it may sleep, and goes on when it wakes
        yield
        return
    try:
        yield
    finally:
        holder.kill()
        holder.wait()


def let_display_sleep() -> None:
    """Put the display to sleep now; any key wakes it. Does nothing except on macOS."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run([_PMSET, "displaysleepnow"], timeout=10, check=False)

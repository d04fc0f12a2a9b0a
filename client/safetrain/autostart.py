"""Starts the daemon of a home where none answers; refuses a socket that another user owns."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

from safetrain_shared.daemon_socket import Notify, answers, wait
from safetrain_shared.errors import ERRORS, Busy, SafetrainError, Unreachable
from safetrain_shared.i18n import language
from safetrain_shared.paths import Home

START_SECONDS = 60.0  # how long a daemon may take until it answers
_NEEDS = ("safetraind", "grpc_health", "psutil", "mlx", "mlx_lm")


def ensure(home: Home, *, autostart: bool, notify: Notify) -> None:
    """Return once a daemon answers at the home's socket, starting one where none does.

    Raises Unreachable where none answers and none may or can be started, NotAllowed where the
    socket or its folder does not belong to the user alone.
    """
    if answers(home):
        return
    if not autostart:
        raise Unreachable("daemon.unreachable", socket=str(home.socket))
    if not installed():
        raise Unreachable("daemon.not_installed")
    from safetrain_shared.messages import sentence

    notify(sentence("daemon.starting", {}))
    start(home)


def installed() -> bool:
    """Whether the daemon and its dependencies are installed in this Python."""
    return all(importlib.util.find_spec(name) for name in _NEEDS)


def start(home: Home) -> None:
    """Start a daemon in the background and wait until it answers.

    Raises the daemon's own refusal, with its sentence and exit code, and Unreachable where it does
    not answer in time.
    """
    import tempfile

    # A file, not a pipe: the daemon keeps inherited descriptors open as long as it lives.
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        done = subprocess.run(
            [sys.executable, "-m", "safetraind", "start"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "SAFETRAIN_HOME": str(home.root), "SAFETRAIN_LANG": language()},
            check=False,
        )
        output.seek(0)
        lines = output.read().strip().splitlines()
    # Busy: another client started one at the same time.
    if done.returncode not in (0, Busy.exit_code):
        raise _refusal(home, done.returncode, lines[-1] if lines else "")
    if not wait(home, START_SECONDS):
        raise Unreachable("daemon.unreachable", socket=str(home.socket))


def _refusal(home: Home, code: int, sentence: str) -> SafetrainError:
    """Return the daemon's own error; where it printed none, one that names its log."""
    cls = {error.exit_code: error for error in ERRORS}.get(code, Unreachable)
    if sentence:
        return cls("daemon.refused", sentence=sentence.removeprefix("safetraind: "))
    return cls("daemon.start_died", log=str(home.log), code=code)

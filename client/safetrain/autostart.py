"""Is a daemon there? Looks at its socket, distrusts one that is not ours, starts one if asked."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from safetrain_shared.errors import ERRORS, Busy, NotAllowed, SafetrainError, Unreachable
from safetrain_shared.i18n import language
from safetrain_shared.paths import Home, trusted

START_SECONDS = 60.0  # how long a daemon may take until it answers
_NEEDS = ("safetraind", "grpc_health", "psutil", "mlx", "mlx_lm")

Say = Callable[[str], None]


def ensure(home: Home, *, autostart: bool, say: Say) -> None:
    """Returns once a daemon answers at the home's socket, starting one where none does.

    Raises Unreachable where there is none and none may or can be started, NotAllowed where the
    socket or its folder are not ours alone.
    """
    if answers(home):
        return
    if not autostart:
        raise Unreachable("daemon.unreachable", socket=str(home.socket))
    if not installed():
        raise Unreachable("daemon.not_installed")
    from safetrain_shared.messages import sentence

    say(sentence("daemon.starting", {}))
    start(home)


def answers(home: Home) -> bool:
    """Whether somebody accepts connections at the home's socket. Raises NotAllowed."""
    path = home.socket
    try:
        trusted(path)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(os.fspath(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError as error:
        raise NotAllowed("home.unwritable", path=str(path), reason=error.strerror) from error
    return True


def installed() -> bool:
    """Whether this Python has the daemon's part of safetrain."""
    return all(importlib.util.find_spec(name) for name in _NEEDS)


def start(home: Home) -> None:
    """Starts a daemon in the background and waits until it answers.

    Raises the daemon's own refusal, with its sentence and exit code.
    """
    import tempfile

    # A file, not a pipe: whatever the daemon inherits may stay open as long as it lives.
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        done = subprocess.run(
            [sys.executable, "-m", "safetraind", "start"],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, "SAFETRAIN_HOME": str(home.root), "SAFETRAIN_LANG": language()},
            check=False,
        )
        said.seek(0)
        lines = said.read().strip().splitlines()
    # Busy: another client was quicker and started one in the same moment.
    if done.returncode not in (0, Busy.exit_code):
        raise _refusal(home, done.returncode, lines[-1] if lines else "")
    if not wait(home, START_SECONDS):
        raise Unreachable("daemon.unreachable", socket=str(home.socket))


def wait(home: Home, seconds: float) -> bool:
    """Waits until a daemon answers; False where none did within `seconds`."""
    deadline = time.monotonic() + seconds
    while not answers(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _refusal(home: Home, code: int, said: str) -> SafetrainError:
    """The daemon's own sentence and exit code; where it said nothing, where its log is."""
    cls = {error.exit_code: error for error in ERRORS}.get(code, Unreachable)
    if said:
        return cls("daemon.refused", sentence=said.removeprefix("safetraind: "))
    return cls("daemon.start_died", log=str(home.log), code=code)

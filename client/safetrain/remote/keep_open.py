"""Keeps the way to another machine open for a server that runs on and on, as `safetrain serve`."""

from __future__ import annotations

import contextlib
import threading
import time

from safetrain.connection import Daemon
from safetrain_shared.daemon_socket import answers
from safetrain_shared.errors import SafetrainError, Unreachable

_LOOK_SECONDS = 1.0


def keep_open(daemon: Daemon) -> None:
    """Open the way again, from a thread of its own, whenever it is lost. Nothing for this machine.

    Returns at once.
    """
    if daemon.host:
        threading.Thread(target=_watch, args=(daemon,), name="way", daemon=True).start()


def _watch(daemon: Daemon) -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        with contextlib.suppress(SafetrainError):  # it is tried again
            if not answers(daemon.home):
                daemon.recover(Unreachable("host.lost", host=daemon.host))

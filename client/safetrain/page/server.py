"""Serves the live page on loopback until Ctrl-C."""

from __future__ import annotations

import os
import socket
import sys
import webbrowser
from collections.abc import Callable

from safetrain import loopback
from safetrain.connection import Daemon
from safetrain.loopback import run
from safetrain.page.access import Keys
from safetrain.page.job_hub import Hub
from safetrain.page.routes import application
from safetrain_shared.errors import Busy

PORT = 8377


def serve(
    daemon: Daemon, port: int | None, *, open_page: bool, told: Callable[[Keys], None]
) -> None:
    """Serves until Ctrl-C or SIGTERM. `told` is given the address once it answers.

    `port` None: the usual one, or any where it is taken; 0: any. Raises Busy, NotAllowed.
    """
    listener = listening(port)
    keys = Keys(listener.getsockname()[1])
    hub = Hub(daemon)
    hub.start()

    def started() -> None:
        told(keys)
        if open_page and has_screen():
            webbrowser.open(keys.address(keys.ticket()))

    run(application(hub, keys), listener, started)


def listening(port: int | None) -> socket.socket:
    """A socket that listens on loopback only. Raises Busy, NotAllowed."""
    if port is not None:
        return loopback.listening(port)
    try:
        return loopback.listening(PORT)
    except Busy:
        return loopback.listening(0)


def has_screen() -> bool:
    """Whether a browser opened here would be seen by who asked for it."""
    if os.environ.get("SSH_CONNECTION"):
        return False
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform == "darwin" or bool(shown)

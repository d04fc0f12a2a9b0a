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
from safetrain.page.job_feed import JobFeed
from safetrain.page.routes import application
from safetrain_shared.errors import Busy

PORT = 8377


def serve(
    daemon: Daemon, port: int | None, *, open_page: bool, on_ready: Callable[[Keys], None]
) -> None:
    """Serve until Ctrl-C or SIGTERM; `on_ready` is called once the page answers.

    `port` None: PORT, or any free one where it is taken; 0: any. Raises Busy, NotAllowed.
    """
    listener = listening(port)
    keys = Keys(listener.getsockname()[1])
    feed = JobFeed(daemon)
    feed.start()

    def started() -> None:
        on_ready(keys)
        if open_page and has_screen():
            webbrowser.open(keys.address(keys.ticket()))

    run(application(feed, keys), listener, started)


def listening(port: int | None) -> socket.socket:
    """Return a socket that listens on loopback only. Raises Busy, NotAllowed."""
    if port is not None:
        return loopback.listening(port)
    try:
        return loopback.listening(PORT)
    except Busy:
        return loopback.listening(0)


def has_screen() -> bool:
    """Whether a browser opened here appears on the user's screen: not over SSH."""
    if os.environ.get("SSH_CONNECTION"):
        return False
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform == "darwin" or bool(shown)

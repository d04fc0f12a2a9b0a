"""Kills and stops one process of a daemon: itself, a worker or a keeper."""

from __future__ import annotations

import contextlib
import random
import signal
import time

import psutil

from tests.harness import DaemonProcess

STOPPED_SECONDS = 0.7  # that a daemon stands still, before it goes on


def strike(
    daemon: DaemonProcess, whom: str, number: signal.Signals, rng: random.Random
) -> str | None:
    """Send the signal to one of them; return its name, None where there was none.

    A daemon that was killed is started again, and one that was stopped goes on.
    """
    if whom == "daemon":
        if number is signal.SIGSTOP:
            assert daemon.process is not None
            daemon.process.send_signal(number)
            time.sleep(STOPPED_SECONDS)
            daemon.process.send_signal(signal.SIGCONT)
        else:
            daemon.kill()
            daemon.start()
        return f"{number.name} daemon"
    victims = daemon.workers() if whom == "worker" else daemon.keepers()
    if not victims:
        return None
    with contextlib.suppress(psutil.Error):
        rng.choice(victims).send_signal(number)
    return f"{number.name} {whom}"

"""Watches that never two workers hold the GPU lease at the same moment."""

from __future__ import annotations

import contextlib
import threading

import psutil

from tests.harness import DaemonProcess

_EVERY_SECONDS = 0.02


class Holders(threading.Thread):
    """Looks at the processes of a daemon's home again and again until it is told to end."""

    def __init__(self, daemon: DaemonProcess) -> None:
        super().__init__(daemon=True)
        self.looks = 0
        self.held = 0  # looks that found a holder
        self.at_once: list[list[int]] = []
        self._daemon, self._over = daemon, threading.Event()
        self.start()

    def run(self) -> None:
        """Notes the pids of those that held it at once."""
        while not self._over.wait(_EVERY_SECONDS):
            holding = [worker for worker in self._daemon.workers() if _has_lease(worker)]
            self.looks += 1
            self.held += bool(holding)
            # One may have ended, and the next begun, while the processes were being listed.
            if len(holding) > 1 and all(_lives(worker) for worker in holding):
                self.at_once.append([worker.pid for worker in holding])

    def end(self) -> None:
        """Returns when it has ended."""
        self._over.set()
        self.join()


def _has_lease(worker: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "SAFETRAIN_LEASE_FD" in worker.environ()
    return False


def _lives(worker: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE
    return False

"""A daemon that nobody asks for anything: what it takes of the machine."""

from __future__ import annotations

import time

import psutil
import pytest

from tests.harness import DaemonProcess

SECONDS = 40.0
MOST_RESIDENT = 60 << 20
MOST_OF_A_CORE = 0.005

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_an_idle_daemon_stays_small_and_quiet(daemon: DaemonProcess) -> None:
    assert daemon.process is not None
    process = psutil.Process(daemon.process.pid)
    time.sleep(5)  # what starting left to do
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(SECONDS)
    share = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
    resident = process.memory_info().rss
    print(f"\nidle: {share:.2%} of a core, {resident / 1e6:.0f} MB resident")
    assert share <= MOST_OF_A_CORE
    assert resident <= MOST_RESIDENT

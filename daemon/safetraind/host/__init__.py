"""Facts about this machine. The one place that knows sysctl, /proc, control groups and psutil.

`gather` takes all facts at once (tens of milliseconds on Linux, a few hundred on macOS, where
small programs are run); the other functions answer one question each and are cheap.
"""

from __future__ import annotations

import sys

import psutil

from safetraind.host import linux, macos
from safetraind.host.apps import App, largest_apps
from safetraind.host.footprint import footprint, footprint_alone
from safetraind.host.host_facts import HostFacts, Pressure
from safetraind.host.linux import find_openblas
from safetraind.host.rdma import rdma_devices

__all__ = [
    "App",
    "HostFacts",
    "Pressure",
    "boot_id",
    "find_openblas",
    "footprint",
    "footprint_alone",
    "gather",
    "largest_apps",
    "pressure",
    "rdma_devices",
    "swap_used",
]

_ON_MACOS = sys.platform == "darwin"


def gather() -> HostFacts:
    """Return the facts about this machine at present. A fact that cannot be read has its empty
    value.
    """
    return macos.gather() if _ON_MACOS else linux.gather()


def pressure() -> Pressure:
    """Return the memory pressure as the system reports it."""
    return macos.pressure() if _ON_MACOS else linux.pressure()


def swap_used() -> int:
    """Return the bytes of swap in use on the machine."""
    return int(psutil.swap_memory().used)


def boot_id() -> str:
    """Return a text that changes with every start of the machine; empty where it cannot be read."""
    return macos.boot_id() if _ON_MACOS else linux.boot_id()

"""The applications that hold the most memory, for advice on what to quit."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from safetraind.host.footprint import footprint

# The outermost bundle: helpers of a browser lie in bundles inside of it.
_BUNDLE = re.compile(r"/([^/]+)\.app/")
# Apple's own lie in /System/Applications, Safari below /System/Volumes/Preboot/Cryptexes/App, each
# in a folder Applications. What else is in /System cannot be quit by name.
_SYSTEM, _OWN = ("/System/", "/usr/libexec/", "/usr/sbin/", "/sbin/"), "/Applications/"
_MOST = 3
_WORTH_SAYING = 256 << 20


@dataclass(frozen=True, slots=True)
class App:
    """An application with all its processes; `bytes` is their footprint."""

    name: str
    bytes: int


def largest_apps() -> list[App]:
    """Return the user's applications that hold the most memory, the largest first. It takes some
    100 ms.
    """
    return grouped(_running())


def grouped(processes: Iterable[tuple[str, int]]) -> list[App]:
    """Return the three largest applications of 256 MB or more from (executable, footprint) pairs.

    The system's own programs and those outside of an application bundle are left out: users cannot
    quit them by name.
    """
    sums: dict[str, int] = {}
    for executable, size in processes:
        bundle = _BUNDLE.search(executable)
        if bundle and (not executable.startswith(_SYSTEM) or _OWN in executable):
            sums[bundle[1]] = sums.get(bundle[1], 0) + size
    apps = sorted((App(name, size) for name, size in sums.items()), key=lambda app: -app.bytes)
    return [app for app in apps if app.bytes >= _WORTH_SAYING][:_MOST]


def _running() -> Iterable[tuple[str, int]]:
    """Return the executables and footprints of this user's processes."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.uids().real == os.getuid():
                yield process.exe(), footprint(process.pid)

"""The memory one process really costs the machine."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

# <sys/resource.h>, struct rusage_info_v0: a 16-byte UUID, then 64-bit counters.
_RUSAGE_INFO_V0 = 0
_UUID_WORDS = 2
_PHYS_FOOTPRINT = 7
_INFO_WORDS = _UUID_WORDS + 10

_PSS = re.compile(rb"^(?:Pss|SwapPss):\s+(\d+) kB$", re.MULTILINE)
_RSS = re.compile(rb"^(?:Rss|SwapPss):\s+(\d+) kB$", re.MULTILINE)


def footprint(pid: int) -> int:
    """Return the bytes that process `pid` costs: phys_footprint on macOS, PSS and swapped PSS on
    Linux.

    0 where the process is gone or belongs to somebody else. Costs about a millisecond on Linux for
    a process of a few gigabytes: not for every step.
    """
    return _phys_footprint(pid) if sys.platform == "darwin" else _rolled_up(pid, _PSS)


def footprint_alone(pid: int) -> int:
    """Return the footprint that process `pid` would have if no other process mapped its libraries:
    on Linux it costs the more the fewer share them, and they may end while it runs.
    """
    return _phys_footprint(pid) if sys.platform == "darwin" else _rolled_up(pid, _RSS)


def _phys_footprint(pid: int) -> int:
    info = (ctypes.c_uint64 * _INFO_WORDS)()
    library = ctypes.CDLL(None)  # libSystem, which every process has
    if library.proc_pid_rusage(pid, _RUSAGE_INFO_V0, ctypes.byref(info)) != 0:
        return 0
    return int(info[_UUID_WORDS + _PHYS_FOOTPRINT])


def _rolled_up(pid: int, sizes: re.Pattern[bytes]) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except OSError:
        return 0
    return 1024 * sum(int(kilobytes) for kilobytes in sizes.findall(text))

"""Facts about a Mac, from the small programs that come with macOS. Parsing is pure and tested
with recorded outputs. What is read again and again while a job trains is read by a system call,
without starting a program.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from safetraind.host.host_facts import HostFacts, Pressure

Run = Callable[[Sequence[str]], str]

SYSCTL = (
    "/usr/sbin/sysctl",
    "machdep.cpu.brand_string",
    "hw.model",
    "hw.memsize",
    "hw.pagesize",
    "hw.physicalcpu",
    "hw.nperflevels",
    "hw.perflevel0.physicalcpu",
    "hw.optional.arm64",
    "kern.memorystatus_vm_pressure_level",
    "kern.bootsessionuuid",
    "sysctl.proc_translated",
    "vm.swapusage",
)
VM_STAT = ("/usr/bin/vm_stat",)
SW_VERS = ("/usr/bin/sw_vers",)
BATTERY = ("/usr/bin/pmset", "-g", "batt")
POWER = ("/usr/bin/pmset", "-g")
GPU = ("/usr/sbin/ioreg", "-r", "-c", "AGXAccelerator", "-d", "1")

_UNKNOWN = Pressure.UNKNOWN
_PRESSURE_LEVEL = "kern.memorystatus_vm_pressure_level"
_LEVELS = {1: Pressure.NORMAL, 2: Pressure.WARNING, 4: Pressure.CRITICAL}
# Pages that macOS gives without compressing anything. "File-backed" is what Activity Monitor calls
# cached files; it contains the speculative pages.
_FREE_PAGES = ("Pages free", "File-backed pages", "Pages purgeable")
# The share of a compressed page that is won: the compressor packs two pages in one and better
# (WKdm; "Pages stored in compressor" over "Pages occupied by compressor" of any busy Mac).
_WON_BY_COMPRESSING = 0.5
_TEXT_BYTES = 256


def run(command: Sequence[str]) -> str:
    """Return a program's standard output; empty where the program is missing or hangs.

    The exit code is ignored: sysctl returns one for each name that this macOS does not know.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def gather(run: Run = run) -> HostFacts:
    """Return the facts of this Mac; `run` runs a program and returns its output."""
    values, battery = _pairs(run(SYSCTL)), run(BATTERY)
    found = re.search(r"\b(\d{1,3})%", battery)
    return HostFacts(
        system="Darwin",
        system_version=_pairs(run(SW_VERS)).get("ProductVersion", ""),
        architecture="arm64" if values.get("hw.optional.arm64") == "1" else "x86_64",
        rosetta=values.get("sysctl.proc_translated") == "1",
        chip=values.get("machdep.cpu.brand_string", ""),
        model=values.get("hw.model", ""),
        memory_total=_integer(values.get("hw.memsize", "")),
        memory_free=_available(run(VM_STAT)),
        swap_used=_swap_used(values.get("vm.swapusage", "")),
        pressure=_LEVELS.get(_integer(values.get(_PRESSURE_LEVEL, "")), _UNKNOWN),
        cpu_cores=_integer(values.get("hw.physicalcpu", "")),
        performance_cores=_integer(values.get("hw.perflevel0.physicalcpu", "")),
        gpu_cores=_gpu_cores(run(GPU)),
        on_battery="'Battery Power'" in battery if found else None,
        battery_share=int(found[1]) / 100 if found else 0.0,
        low_power=_is_low_power(run(POWER)),
        boot_id=values.get("kern.bootsessionuuid", ""),
    )


def pressure(read: Callable[[str], int] | None = None) -> Pressure:
    """Return the kernel's own pressure level. `read`: the value of a name of sysctl, for tests."""
    return _LEVELS.get((read or _sysctl_integer)(_PRESSURE_LEVEL), _UNKNOWN)


def boot_id() -> str:
    """Return the identity of this boot."""
    return _sysctl_text("kern.bootsessionuuid")


def _sysctl_integer(name: str) -> int:
    """Return a 32-bit value by sysctlbyname(3); 0 where this system does not know the name."""
    value = ctypes.c_int(0)
    size = ctypes.c_size_t(ctypes.sizeof(value))
    failed = _sysctlbyname(name, ctypes.byref(value), size)
    return 0 if failed else value.value


def _sysctl_text(name: str) -> str:
    """Return a text by sysctlbyname(3); empty where this system does not know the name."""
    value = ctypes.create_string_buffer(_TEXT_BYTES)
    failed = _sysctlbyname(name, value, ctypes.c_size_t(_TEXT_BYTES - 1))
    return "" if failed else value.value.decode("ascii", "replace")


def _sysctlbyname(name: str, value: Any, size: ctypes.c_size_t) -> bool:
    """Return whether the call failed."""
    try:
        call = ctypes.CDLL(None).sysctlbyname  # libSystem, which every process has
    except AttributeError:  # not macOS
        return True
    return bool(call(name.encode(), value, ctypes.byref(size), None, ctypes.c_size_t(0)))


def _pairs(text: str) -> dict[str, str]:
    """Return the pairs of `name: value` lines. sw_vers separates them with tabs."""
    lines = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in lines if colon}


def _available(text: str) -> int:
    """Return the bytes available by `vm_stat`: free, file-backed and purgeable pages, and the gain
    of compressing inactive anonymous ones.

    vm_stat does not divide the inactive pages; they are taken to hold anonymous and file-backed
    ones as all pages do.
    """
    page = re.search(r"page size of (\d+) bytes", text)
    if not page:
        return 0
    counts = {name: _integer(value.rstrip(".")) for name, value in _pairs(text).items()}
    anonymous = counts.get("Anonymous pages", 0)
    pageable = anonymous + counts.get("File-backed pages", 0)
    inactive = counts.get("Pages inactive", 0) * anonymous // max(1, pageable)
    free = sum(counts.get(name, 0) for name in _FREE_PAGES)
    return int(page[1]) * (free + int(_WON_BY_COMPRESSING * inactive))


def _is_low_power(text: str) -> bool:
    """Return whether `pmset -g` reports the low power mode: "lowpowermode 1", or "powermode 1" on
    Pro and Max Macs, where 2 is high power.
    """
    return bool(re.search(r"^\s*(?:low)?powermode\s+1\s*$", text, re.M))


def _swap_used(text: str) -> int:
    found = re.search(r"used = ([\d.,]+)([KMG])", text)
    if not found:
        return 0
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[found[2]]
    return round(float(found[1].replace(",", ".")) * unit)


def _gpu_cores(text: str) -> int:
    found = re.search(r'"gpu-core-count"\s*=\s*(\d+)', text)
    return int(found[1]) if found else 0


def _integer(text: str) -> int:
    return int(text) if text.isdigit() else 0

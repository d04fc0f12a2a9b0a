"""Facts about a Mac, from the small programs that come with macOS. Parsing is pure and tested
with recorded outputs.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence

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
_LEVELS = {"1": Pressure.NORMAL, "2": Pressure.WARNING, "4": Pressure.CRITICAL}
# Pages that can be had without writing anything out.
_AVAILABLE_PAGES = ("Pages free", "Pages speculative", "Pages inactive", "Pages purgeable")


def run(command: Sequence[str]) -> str:
    """What a program printed; empty where it is missing or hangs. A bad exit code is no matter:
    sysctl has one for each name that this macOS does not know.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def gather(run: Run = run) -> HostFacts:
    """The facts of this Mac; `run` runs a program and returns its output."""
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
        pressure=_LEVELS.get(values.get("kern.memorystatus_vm_pressure_level", ""), _UNKNOWN),
        cpu_cores=_integer(values.get("hw.physicalcpu", "")),
        performance_cores=_integer(values.get("hw.perflevel0.physicalcpu", "")),
        gpu_cores=_gpu_cores(run(GPU)),
        on_battery="'Battery Power'" in battery if found else None,
        battery_share=int(found[1]) / 100 if found else 0.0,
        low_power=bool(re.search(r"^\s*lowpowermode\s+1\s*$", run(POWER), re.M)),
        boot_id=values.get("kern.bootsessionuuid", ""),
    )


def pressure(run: Run = run) -> Pressure:
    """The kernel's own pressure level."""
    return _LEVELS.get(_value(run, "kern.memorystatus_vm_pressure_level"), _UNKNOWN)


def boot_id(run: Run = run) -> str:
    """The identity of this boot."""
    return _value(run, "kern.bootsessionuuid")


def _value(run: Run, name: str) -> str:
    return _pairs(run((SYSCTL[0], name))).get(name, "")


def _pairs(text: str) -> dict[str, str]:
    """`name: value` lines; sw_vers puts tabs between."""
    lines = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in lines if colon}


def _available(text: str) -> int:
    page = re.search(r"page size of (\d+) bytes", text)
    counts = _pairs(text)
    pages = sum(_integer(counts.get(name, "").rstrip(".")) for name in _AVAILABLE_PAGES)
    return pages * int(page[1]) if page else 0


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

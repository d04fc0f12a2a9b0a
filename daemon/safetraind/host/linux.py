"""Facts about a Linux machine, from /proc, /sys and control groups of both versions."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

import psutil

from safetraind.host.host_facts import HostFacts, Pressure

# A group without a limit of version 1 says the largest page-aligned 63-bit number.
_NO_LIMIT = 1 << 60
# Share of the last 10 s in which some (all) tasks waited for memory, in percent.
_PRESSURE_WARNING = 10.0
_PRESSURE_CRITICAL = 10.0
# Share of the memory, or of a control group's, that is left; where it ends the kernel kills.
_ROOM_WARNING = 0.05
_ROOM_CRITICAL = 0.02
_OPENBLAS_NAMES = ("libopenblas.so.0", "libopenblasp.so.0", "libopenblas.so")
_LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/OpenBLAS/lib", "/lib")


def gather(root: Path = Path("/")) -> HostFacts:
    """Return the facts of this machine; `root` is where /proc and /sys are looked for."""
    limit, used = memory_group(root)
    memory, battery = psutil.virtual_memory(), psutil.sensors_battery()
    return HostFacts(
        system="Linux",
        system_version=platform.release(),
        architecture=platform.machine(),
        chip=_chip(root),
        memory_total=memory.total,
        memory_free=memory.available,
        memory_limit=limit if limit < memory.total else 0,
        limit_used=used,
        swap_used=psutil.swap_memory().used,
        pressure=pressure(root),
        cpu_cores=_usable_cores(),
        on_battery=None if battery is None else not battery.power_plugged,
        battery_share=0.0 if battery is None else battery.percent / 100,
        boot_id=boot_id(root),
    )


def _usable_cores() -> int:
    """Return the number of cores that this process may use. A container can have fewer than the
    machine.
    """
    if sys.platform != "linux":  # recorded Linux machines are read on a Mac too
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def boot_id(root: Path = Path("/")) -> str:
    """Return the kernel's identity of this boot."""
    return _text(root / "proc/sys/kernel/random/boot_id")


def pressure(root: Path = Path("/")) -> Pressure:
    """Return the memory pressure, from the kernel's stall information (PSI) and the free memory."""
    text = _text(root / "proc/pressure/memory")
    stalls = {kind: float(share) for kind, share in re.findall(r"(some|full) avg10=([\d.]+)", text)}
    left = _share_left(root)
    if not stalls and left is None:
        return Pressure.UNKNOWN
    left = 1.0 if left is None else left
    if stalls.get("full", 0.0) >= _PRESSURE_CRITICAL or left < _ROOM_CRITICAL:
        return Pressure.CRITICAL
    if stalls.get("some", 0.0) >= _PRESSURE_WARNING or left < _ROOM_WARNING:
        return Pressure.WARNING
    return Pressure.NORMAL


def _share_left(root: Path) -> float | None:
    """Return the share of the memory that is available, of the machine or the control group, the
    lesser.
    """
    shares = []
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo"), re.M))
    if int(found.get("MemTotal", 0)) and "MemAvailable" in found:
        shares.append(int(found["MemAvailable"]) / int(found["MemTotal"]))
    limit, used = memory_group(root)
    if limit:
        shares.append(max(0, limit - used) / limit)
    return min(shares, default=None)


def memory_group(root: Path = Path("/")) -> tuple[int, int]:
    """Return the tightest limit of this process's memory control groups, and the bytes used below
    it.

    Bytes, (0, 0) without a limit. A limit of an outer group holds for the inner ones too.
    """
    tightest = (_NO_LIMIT, 0)
    for folder, limit_name, usage_name in _group_folders(root):
        limit = _number(folder / limit_name)
        if limit is not None and 0 < limit < tightest[0]:
            used = (_number(folder / usage_name) or 0) - _reclaimable(folder)
            tightest = (limit, max(0, used))
    return tightest if tightest[0] < _NO_LIMIT else (0, 0)


def find_openblas() -> str:
    """Return the path of a shared OpenBLAS to preload for fast float32 on a CPU worker; empty:
    none.
    """
    chosen = os.environ.get("SAFETRAIN_OPENBLAS")
    if chosen is not None:
        return chosen if Path(chosen).is_file() else ""
    triplet = f"{platform.machine()}-linux-gnu"
    for folder in _LIBRARY_FOLDERS:
        for place in (Path(folder) / triplet, Path(folder)):
            for name in _OPENBLAS_NAMES:
                if (place / name).exists():
                    return str(place / name)
    return ""


def _group_folders(root: Path) -> list[tuple[Path, str, str]]:
    """Return the memory group of this process and its ancestors, of whichever version is
    mounted.
    """
    folders = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, inside = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        inner = base / inside.lstrip("/")
        outer = [p for p in inner.parents if p.is_relative_to(base)]
        folders += [(folder, *names) for folder in [inner, *outer]]
    return folders


def _reclaimable(folder: Path) -> int:
    """Return the bytes of page cache that the kernel frees before it kills."""
    found = re.search(r"^(?:total_)?inactive_file (\d+)$", _text(folder / "memory.stat"), re.M)
    return int(found[1]) if found else 0


def _chip(root: Path) -> str:
    text = _text(root / "proc/cpuinfo")
    found = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", text, re.M)
    return found[1].strip() if found else platform.machine()


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetraind import host
from safetraind.host import Pressure, linux, macos
from tests.preflight.macs import (
    BUSY_M1_8,
    BUSY_M2_16,
    M1_AIR,
    M1_PRO,
    M2_MINI,
    M3_MAX,
    M4_MAX,
    MACS,
    UNDER_ROSETTA,
    Mac,
    with_sysctl,
    without,
)

GB = 1 << 30


@pytest.mark.parametrize("mac", MACS, ids=lambda mac: mac.model)
def test_reads_chip_memory_and_cores_of_each_mac(mac: Mac) -> None:
    facts = macos.gather(mac.run())
    assert (facts.chip, facts.model) == (mac.chip, mac.model)
    assert facts.memory_total == mac.memory_gb * GB
    assert (facts.cpu_cores, facts.performance_cores, facts.gpu_cores) == (
        mac.cores,
        mac.performance,
        mac.gpu,
    )
    assert facts.system_version == mac.version
    assert facts.is_mac and facts.apple_silicon
    assert 0 < facts.memory_available < facts.memory_total


def test_available_memory_of_a_mac_is_what_macos_would_give() -> None:
    """Free, file-backed and purgeable pages, and half of the inactive anonymous ones."""
    facts = macos.gather(M1_AIR.run())
    inactive = 96310 * 254122 // (254122 + 103311)
    assert facts.memory_available == (4821 + 103311 + 2210 + inactive // 2) * 16384


def test_a_mac_with_ordinary_applications_open_has_more_than_its_free_pages() -> None:
    assert 1.8 < macos.gather(BUSY_M1_8.run()).memory_available / GB < 2.5
    assert 4.5 < macos.gather(BUSY_M2_16.run()).memory_available / GB < 6


@pytest.mark.parametrize("missing", [macos.VM_STAT, macos.BATTERY, macos.POWER, macos.GPU])
def test_a_mac_whose_programs_fail_one_by_one_keeps_the_other_facts(missing: tuple[str]) -> None:
    facts = macos.gather(without(M1_AIR.run(), missing))
    assert facts.chip == "Apple M1" and facts.memory_total == 8 * GB
    assert (facts.memory_available == 0) == (missing == macos.VM_STAT)
    assert (facts.on_battery is None) == (missing == macos.BATTERY)
    assert (facts.gpu_cores == 0) == (missing == macos.GPU)


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        (
            "vm.swapusage: total = 3072,00M  used = 2410,25M  free = 661,75M",
            "swap_used",
            2527330304,
        ),
        ("vm.swapusage: disabled", "swap_used", 0),
        ("kern.memorystatus_vm_pressure_level: 4", "pressure", Pressure.CRITICAL),
        ("kern.memorystatus_vm_pressure_level: 3", "pressure", Pressure.UNKNOWN),
        ("kern.memorystatus_vm_pressure_level", "pressure", Pressure.UNKNOWN),
        ("hw.perflevel0.physicalcpu", "performance_cores", 0),
        ("hw.memsize: not a number", "memory_total", 0),
        ("hw.optional.arm64", "architecture", "x86_64"),
    ],
)
def test_what_sysctl_says_otherwise_is_read_or_left_unknown(
    line: str, attribute: str, value: object
) -> None:
    assert getattr(macos.gather(with_sysctl(M1_AIR.run(), line)), attribute) == value


@pytest.mark.parametrize(
    ("level", "pressure"),
    [
        (1, Pressure.NORMAL),
        (2, Pressure.WARNING),
        (4, Pressure.CRITICAL),
        (0, Pressure.UNKNOWN),
    ],
)
def test_pressure_is_read_by_a_system_call(level: int, pressure: Pressure) -> None:
    asked: list[str] = []

    def read(name: str) -> int:
        asked.append(name)
        return level

    assert macos.pressure(read) is pressure
    assert asked == ["kern.memorystatus_vm_pressure_level"]


def test_while_it_watches_no_program_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("a program was started"))
    assert macos.pressure() in (Pressure.UNKNOWN, *Pressure)  # unknown where this is no Mac
    assert isinstance(macos.boot_id(), str)


def test_pressure_swap_and_battery_of_a_small_mac_in_trouble() -> None:
    facts = macos.gather(M1_AIR.run())
    assert facts.pressure is Pressure.WARNING
    assert facts.swap_used == round(2410.25 * (1 << 20))
    assert facts.on_battery is True
    assert facts.battery_share == 0.62


def test_power_of_plugged_desktop_and_saving_macs() -> None:
    assert macos.gather(M1_PRO.run()).on_battery is False
    assert macos.gather(M2_MINI.run()).on_battery is None
    assert macos.gather(M3_MAX.run()).low_power, "powermode, as Pro and Max Macs call it"
    saving = dataclasses.replace(M1_AIR, low_power=True)
    assert macos.gather(saving.run()).low_power, "lowpowermode, as the others do"
    assert not macos.gather(M4_MAX.run()).low_power


def test_rosetta_is_told_from_native() -> None:
    assert macos.gather(UNDER_ROSETTA.run()).rosetta
    assert not macos.gather(M4_MAX.run()).rosetta


def test_a_mac_that_answers_nothing_gives_empty_facts() -> None:
    facts = macos.gather(lambda command: "")
    assert facts.memory_total == facts.memory_available == facts.gpu_cores == 0
    assert facts.pressure is Pressure.UNKNOWN


def test_a_missing_program_says_nothing() -> None:
    assert macos.run(("/no/such/program",)) == ""


def group_v2(root: Path, limit: str, used: int, cache: int) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/user.slice/job\n")
    inner = root / "sys/fs/cgroup/user.slice/job"
    inner.mkdir(parents=True)
    (inner.parent / "memory.max").write_text("max\n")
    (inner / "memory.max").write_text(f"{limit}\n")
    (inner / "memory.current").write_text(f"{used}\n")
    (inner / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\n")


def test_control_group_of_version_2_limits_memory(tmp_path: Path) -> None:
    group_v2(tmp_path, str(4 * GB), used=GB, cache=GB // 4)
    assert linux.memory_group(tmp_path) == (4 * GB, GB - GB // 4)


def test_control_group_without_a_limit_is_none(tmp_path: Path) -> None:
    group_v2(tmp_path, "max", used=GB, cache=0)
    assert linux.memory_group(tmp_path) == (0, 0)


def test_control_group_of_version_1_takes_the_tightest_ancestor(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("5:cpuset:/\n4:memory:/docker/abc\n0::/\n")
    outer = tmp_path / "sys/fs/cgroup/memory"
    inner = outer / "docker/abc"
    inner.mkdir(parents=True)
    for folder, limit in ((outer, 9223372036854771712), (inner.parent, 2 * GB), (inner, 3 * GB)):
        (folder / "memory.limit_in_bytes").write_text(str(limit))
        (folder / "memory.usage_in_bytes").write_text(str(GB))
    assert linux.memory_group(tmp_path) == (2 * GB, GB)


def test_a_group_inside_a_container_is_read_at_the_mount(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/not/visible/here\n")
    mount = tmp_path / "sys/fs/cgroup/memory"
    mount.mkdir(parents=True)
    (mount / "memory.limit_in_bytes").write_text(str(GB))
    (mount / "memory.usage_in_bytes").write_text("4096")
    assert linux.memory_group(tmp_path) == (GB, 4096)


def test_available_memory_is_what_the_group_leaves() -> None:
    facts = host.HostFacts("Linux", memory_total=16 * GB, memory_free=8 * GB)
    limited = host.HostFacts(
        "Linux", memory_total=16 * GB, memory_free=8 * GB, memory_limit=4 * GB, limit_used=3 * GB
    )
    assert facts.memory_available == 8 * GB
    assert limited.memory_available == GB


def test_pressure_on_linux_reads_stall_information(tmp_path: Path) -> None:
    file = tmp_path / "proc/pressure/memory"
    file.parent.mkdir(parents=True)
    line = "some avg10={} avg60=0.00 avg300=0.00 total=1\nfull avg10={} avg60=0.00 total=1\n"
    for some, full, expected in (
        ("0.00", "0.00", Pressure.NORMAL),
        ("12.50", "1.00", Pressure.WARNING),
        ("80.00", "30.00", Pressure.CRITICAL),
    ):
        file.write_text(line.format(some, full))
        assert linux.pressure(tmp_path) is expected


@pytest.mark.parametrize(
    ("used", "expected"),
    [(0.90, Pressure.NORMAL), (0.96, Pressure.WARNING), (0.99, Pressure.CRITICAL)],
)
def test_a_group_with_little_room_left_is_under_pressure(
    tmp_path: Path, used: float, expected: Pressure
) -> None:
    group_v2(tmp_path, str(GB), used=int(used * GB) + 4096, cache=4096)
    assert linux.pressure(tmp_path) is expected


def test_a_machine_with_little_room_left_is_under_pressure(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    text = "MemTotal:       16000000 kB\nMemFree:          100000 kB\nMemAvailable:  {} kB\n"
    for left, expected in ((4_000_000, Pressure.NORMAL), (600_000, Pressure.WARNING)):
        (tmp_path / "proc/meminfo").write_text(text.format(left))
        assert linux.pressure(tmp_path) is expected


def test_openblas_can_be_chosen_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "libopenblas.so.0"
    library.touch()
    monkeypatch.setenv("SAFETRAIN_OPENBLAS", str(library))
    assert linux.find_openblas() == str(library)
    monkeypatch.setenv("SAFETRAIN_OPENBLAS", "")
    assert linux.find_openblas() == ""


def test_footprint_of_this_process_grows_with_what_it_touches() -> None:
    before = host.footprint(os.getpid())
    held = bytearray(os.urandom(64 << 20))
    assert host.footprint(os.getpid()) - before > 60 << 20
    assert len(held) == 64 << 20


_MAPPED = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print(sum(mapped[:: mmap.PAGESIZE]) >= 0, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def _mapping(file: Path) -> Iterator[int]:
    """The number of a process that has mapped and read the file."""
    command = [sys.executable, "-c", _MAPPED, str(file)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdin and process.stdout and process.stdout.readline()
        yield process.pid
        process.stdin.close()


def test_what_others_share_at_the_moment_does_not_count_less(tmp_path: Path) -> None:
    """On Linux a footprint divides it by those who share it, which would be 32 MB less here."""
    (tmp_path / "library").write_bytes(bytes(64 << 20))
    with _mapping(tmp_path / "library") as one:
        before, alone = host.footprint(one), host.footprint_alone(one)
        with _mapping(tmp_path / "library"):
            if sys.platform == "linux":
                assert host.footprint(one) < before - (24 << 20)
            assert host.footprint_alone(one) == pytest.approx(alone, abs=4 << 20)


def test_footprint_of_nobody_is_zero() -> None:
    assert host.footprint(2**22 + 1) == 0


def test_boot_id_stays() -> None:
    assert host.boot_id() == host.boot_id() != ""

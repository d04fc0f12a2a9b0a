"""What several Macs print when they are asked for their facts, in the form that macOS has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from safetraind.host import macos

_SYSCTL = """\
machdep.cpu.brand_string: {chip}
hw.model: {model}
hw.memsize: {memory}
hw.pagesize: 16384
hw.physicalcpu: {cores}
hw.nperflevels: 2
hw.perflevel0.physicalcpu: {performance}
hw.optional.arm64: 1
kern.memorystatus_vm_pressure_level: {pressure}
kern.bootsessionuuid: 5D9A2C1E-8B43-4F0A-9E77-0C6D1B2A3F44
sysctl.proc_translated: {translated}
vm.swapusage: total = {swap_total}  used = {swap_used}  free = 512.00M  (encrypted)
"""

_VM_STAT = """\
Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                              {free:>12}.
Pages active:                            {active:>12}.
Pages inactive:                          {inactive:>12}.
Pages speculative:                               1541.
Pages throttled:                                    0.
Pages wired down:                        {wired:>12}.
Pages purgeable:                                 2210.
"Translation faults":                       912837465.
Pages copy-on-write:                         28374651.
File-backed pages:                       {file_backed:>12}.
Anonymous pages:                         {anonymous:>12}.
Pages stored in compressor:                    210331.
Pages occupied by compressor:            {compressor:>12}.
"""

_SW_VERS = "ProductName:\t\tmacOS\nProductVersion:\t\t{version}\nBuildVersion:\t\t23F79\n"

_ON_BATTERY = """\
Now drawing from 'Battery Power'
 -InternalBattery-0 (id=4653155)\t{charge}%; discharging; 3:12 remaining present: true
"""
_PLUGGED_IN = """\
Now drawing from 'AC Power'
 -InternalBattery-0 (id=4653155)\t{charge}%; charged; 0:00 remaining present: true
"""
_NO_BATTERY = "Now drawing from 'AC Power'\n"

_POWER = """\
System-wide power settings:
Currently in use:
 standby              1
 Sleep On Power Button 1
 hibernatefile        /var/vm/sleepimage
 powernap             1
 {mode:<20} {low}
 displaysleep         10
"""

_GPU = """\
+-o AGXAcceleratorG13X  <class AGXAcceleratorG13X, id 0x1000004a1, registered, matched, active>
    {{
      "model" = "{chip}"
      "IOClass" = "AGXAcceleratorG13X"
      "gpu-core-count" = {gpu}
      "GPUConfigurationVariable" = {{"num_cores"={gpu},"gpu_gen"=13,"num_gps"=1}}
      "MetalPluginName" = "AGXMetal13_3"
    }}
"""


@dataclass(frozen=True)
class Mac:
    """One recorded machine. Pages (`free`, `inactive`, `file_backed`, `anonymous`) have 16 KB."""

    chip: str
    model: str
    memory_gb: int
    cores: int
    performance: int
    gpu: int
    version: str
    free: int
    inactive: int
    pressure: int = 1
    swap_used: str = "0.00M"
    charge: int | None = 100
    on_battery: bool = False
    low_power: bool = False
    rosetta: bool = False
    file_backed: int = 103_311
    anonymous: int = 254_122

    def run(self) -> Callable[[Sequence[str]], str]:
        """Answers the commands of `host.macos` as this machine does."""
        answers = {
            macos.SYSCTL: self._sysctl(),
            macos.VM_STAT: self._vm_stat(),
            macos.SW_VERS: _SW_VERS.format(version=self.version),
            macos.BATTERY: self._battery(),
            macos.POWER: _POWER.format(mode=self._power_mode, low=int(self.low_power)),
            macos.GPU: _GPU.format(chip=self.chip, gpu=self.gpu) if self.gpu else "",
        }
        return lambda command: answers.get(tuple(command), "")

    def _sysctl(self) -> str:
        return _SYSCTL.format(
            chip=self.chip,
            model=self.model,
            memory=self.memory_gb << 30,
            cores=self.cores,
            performance=self.performance,
            pressure=self.pressure,
            translated=int(self.rosetta),
            swap_total="3072.00M",
            swap_used=self.swap_used,
        )

    def _vm_stat(self) -> str:
        """Whatever is neither free, file-backed nor anonymous is wired or in the compressor."""
        rest = (self.memory_gb << 16) - self.free - self.file_backed - self.anonymous
        return _VM_STAT.format(
            free=self.free,
            inactive=self.inactive,
            active=self.file_backed + self.anonymous - self.inactive,
            wired=rest * 2 // 3,
            file_backed=self.file_backed,
            anonymous=self.anonymous,
            compressor=rest // 3,
        )

    @property
    def _power_mode(self) -> str:
        """Macs with a choice of three say so by another name."""
        return "powermode" if self.chip.endswith(("Pro", "Max")) else "lowpowermode"

    def _battery(self) -> str:
        if self.charge is None:
            return _NO_BATTERY
        return (_ON_BATTERY if self.on_battery else _PLUGGED_IN).format(charge=self.charge)


M1_AIR = Mac(
    *("Apple M1", "MacBookAir10,1", 8, 8, 4, 7, "14.5", 4821, 96310),
    pressure=2,
    swap_used="2410.25M",
    charge=62,
    on_battery=True,
)
M1_PRO = Mac(
    *("Apple M1 Pro", "MacBookPro18,3", 16, 8, 6, 14, "15.1", 201442, 318820),
    file_backed=310_882,
    anonymous=331_204,
)
M2_MINI = Mac(
    *("Apple M2", "Mac14,3", 24, 8, 4, 10, "14.2.1", 402118, 512006),
    charge=None,
    file_backed=601_220,
    anonymous=422_318,
)
M3_MAX = Mac(
    *("Apple M3 Max", "Mac15,9", 64, 16, 12, 40, "15.3", 1902118, 912006),
    low_power=True,
    file_backed=1_104_381,
    anonymous=718_225,
)
M4_MAX = Mac(
    *("Apple M4 Max", "Mac16,5", 128, 16, 12, 40, "26.1", 5120431, 1810022),
    charge=88,
    file_backed=2_012_337,
    anonymous=804_112,
)
UNDER_ROSETTA = Mac("Apple M2 Pro", "Mac14,9", 16, 10, 6, 16, "13.6", 201442, 98820, rosetta=True)
# With a browser, a messenger and an editor open, as most people have them.
BUSY_M1_8 = Mac(
    *("Apple M1", "Macmini9,1", 8, 8, 4, 8, "15.5", 5_210, 118_230),
    pressure=2,
    swap_used="1630.50M",
    charge=None,
    file_backed=88_410,
    anonymous=150_322,
)
BUSY_M2_16 = Mac(
    *("Apple M2", "Mac14,2", 16, 8, 4, 10, "15.5", 31_877, 290_114),
    swap_used="212.00M",
    charge=91,
    file_backed=221_640,
    anonymous=371_908,
)
M4_32 = Mac(
    *("Apple M4", "Mac16,10", 32, 10, 4, 10, "26.0", 612_440, 498_310),
    charge=None,
    file_backed=520_118,
    anonymous=510_227,
)

MACS = (M1_AIR, M1_PRO, M2_MINI, M3_MAX, M4_MAX, UNDER_ROSETTA, BUSY_M1_8, BUSY_M2_16, M4_32)

Run = Callable[[Sequence[str]], str]


def without(run: Run, *commands: Sequence[str]) -> Run:
    """The machine of `run` on which these programs are missing, hang or print nothing."""
    return lambda command: "" if tuple(command) in commands else run(command)


def with_sysctl(run: Run, line: str) -> Run:
    """The machine of `run` on which sysctl prints `line` for its name, or with only a name and no
    value does not know it.
    """
    name = line.partition(":")[0]

    def other(command: Sequence[str]) -> str:
        text = run(command)
        if tuple(command) != macos.SYSCTL:
            return text
        kept = [old for old in text.splitlines() if old.partition(":")[0] != name]
        return "\n".join([*kept, *([line] if ":" in line else [])])

    return other

"""The facts about a machine, as plain values. Sizes are bytes; zero and empty mean unknown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Pressure(StrEnum):
    """The system's own report on memory: the effort to find free pages."""

    UNKNOWN = "unknown"
    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One machine at one moment.

    `memory_limit` and `limit_used` are a control group's, where it allows less than the machine
    has. `on_battery` is None where there is no battery or nothing can be read.
    """

    system: str
    system_version: str = ""
    architecture: str = ""
    rosetta: bool = False
    chip: str = ""
    model: str = ""
    memory_total: int = 0
    memory_free: int = 0
    memory_limit: int = 0
    limit_used: int = 0
    swap_used: int = 0
    pressure: Pressure = Pressure.UNKNOWN
    cpu_cores: int = 0
    performance_cores: int = 0
    gpu_cores: int = 0
    on_battery: bool | None = None
    battery_share: float = 0.0
    low_power: bool = False
    boot_id: str = ""

    @property
    def is_mac(self) -> bool:
        """Whether this is macOS, on any processor."""
        return self.system == "Darwin"

    @property
    def apple_silicon(self) -> bool:
        """Whether the processor is Apple's, even when this Python runs under Rosetta."""
        return self.is_mac and (self.architecture == "arm64" or self.rosetta)

    @property
    def memory_available(self) -> int:
        """Bytes that a new process may use: the machine's free memory, or less under a control
        group.
        """
        if not self.memory_limit:
            return self.memory_free
        return min(self.memory_free, max(0, self.memory_limit - self.limit_used))

    @property
    def memory_usable(self) -> int:
        """The most bytes that any process can use here."""
        return min(self.memory_total, self.memory_limit or self.memory_total)

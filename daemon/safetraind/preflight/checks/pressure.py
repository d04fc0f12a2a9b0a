"""Whether the system is already short of memory: its own pressure level, and swap in use."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.host import Pressure
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, warning

_MUCH_SWAP = 2 << 30


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the memory pressure; no finding without any. It is the level that counts: available
    bytes mislead.
    """
    host = facts.host
    if host.pressure in (Pressure.WARNING, Pressure.CRITICAL):
        return [warning("hardware.pressure", level=str(host.pressure))]
    if host.swap_used >= _MUCH_SWAP:
        return [warning("hardware.swap", used=host.swap_used)]
    return []


CHECK = Check("pressure", "hardware", judge)

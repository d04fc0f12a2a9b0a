"""What the machine itself may do to a training that begins: an empty battery, a closed lid."""

from __future__ import annotations

from safetrain_shared.findings import Finding, Status
from safetraind.host import HostFacts


def warnings(machine: HostFacts) -> list[Finding]:
    """What to say when a training starts. Sleep for idleness is held off; a closed lid is not."""
    if not machine.is_mac or machine.on_battery is None:  # without a battery there is no lid
        return []
    lid = Finding("job.lid", Status.INFO)
    if not machine.on_battery:
        return [lid]
    args = {"share": machine.battery_share}
    return [Finding("hardware.battery", Status.WARNING, args=args), lid]

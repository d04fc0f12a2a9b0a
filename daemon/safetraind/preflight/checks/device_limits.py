"""The limits of the device: its recommended working set and its largest single buffer."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, info


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Return the device's limits, where it reports them; the planner stays below."""
    device = facts.device
    if device is None or not device.working_set:
        return []
    return [
        info(
            "gpu.limits",
            working_set=device.working_set,
            buffer=device.largest_buffer,
            resources=device.resources,
        )
    ]


CHECK = Check("device_limits", "gpu", judge, needs=("device",))

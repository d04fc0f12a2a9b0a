"""Whether the machine is plugged in and may use its full speed."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, warning


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the power supply. Hours of training outlast a battery, and low-power mode makes them
    longer.
    """
    host, findings = facts.host, []
    if host.on_battery:
        findings.append(warning("hardware.battery", share=host.battery_share))
    if host.low_power:
        findings.append(warning("hardware.low_power"))
    return findings


CHECK = Check("power", "hardware", judge)

"""The processor, and whether Python runs natively on it."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, passed, warning


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the processor. Apple Silicon is what the product is made for; elsewhere it computes on
    what there is.
    """
    host = facts.host
    if host.rosetta:
        return [failed("hardware.rosetta")]
    if host.apple_silicon:
        chip = host.chip.removeprefix("Apple ") or host.model
        return [passed("hardware.apple_silicon", chip=chip)]
    if host.is_mac:
        return [failed("hardware.intel_mac", chip=host.chip)]
    return [warning("hardware.other", chip=host.chip, system=host.system)]


CHECK = Check("chip", "hardware", judge)

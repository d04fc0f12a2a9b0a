"""Whether the output folder can be written."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the output folder; no finding where it can be written."""
    disk = facts.disk
    if disk.unwritable:
        return [failed("path.unwritable", path=disk.output, reason=disk.unwritable)]
    return []


CHECK = Check("output", "disk", judge)

"""The number of cores of the CPU and, where it can be read, of the GPU."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, info, passed, warning


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the number of cores. A single core leaves none for the rest of the system."""
    host = facts.host
    if host.cpu_cores == 1:
        return [warning("hardware.one_core")]
    findings = [passed("hardware.cores", cores=host.cpu_cores)]
    if host.gpu_cores:
        findings.append(info("hardware.gpu_cores", cores=host.gpu_cores))
    return findings


CHECK = Check("cores", "hardware", judge)

"""The device that computes, found by a real operation on it."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, info, passed, warning


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the device. A CPU trains too, slowly; on a Mac it means that something is wrong with
    the installation.
    """
    device = facts.device
    if device is None:
        return [info("gpu.busy" if facts.busy else "gpu.not_tried")]
    if not device.works:
        return [failed("gpu.broken", kind=device.kind, reason=device.reason)]
    if device.kind == "metal":
        return [passed("gpu.metal")]
    if device.kind == "cuda":
        return [passed("gpu.cuda", name=device.name)]
    return [warning("gpu.cpu_on_mac" if facts.host.is_mac else "gpu.cpu")]


CHECK = Check("device", "gpu", judge, needs=("packages",))

"""The GPU is not used: what computes here, found by a real operation, and why it is not the GPU."""

from __future__ import annotations

from safetrain_shared.findings import Finding
from safetraind.diagnosis.diagnosis_facts import BAD, Facts
from safetraind.preflight.check import carry_out, info, passed
from safetraind.preflight.checks import CHECKS


def judge(facts: Facts) -> list[Finding]:
    """The device's own verdict is told in full, what else stands in its way where it does."""
    device = facts.machine.device
    if device is None and facts.machine.busy:
        return [info("diagnosis.gpu_at_work")]
    chosen = [check for check in CHECKS if check.name in ("chip", "python", "system", "device")]
    found = list(carry_out(chosen, facts.spec, facts.machine, set()))
    hindrances = [finding for finding in found if finding.status in BAD]
    if device is None:
        return [info("gpu.not_tried"), *hindrances]
    if not device.works:
        return hindrances
    told = {"kind": device.kind, "name": device.name or facts.machine.host.chip}
    if device.kind == "cpu":
        return [info("diagnosis.gpu_device", **told), *hindrances]
    return [passed("diagnosis.gpu_device", **told)]

"""The GPU is not used: which device computes, tested by a real operation, and the reasons."""

from __future__ import annotations

from safetrain_shared.findings import Finding
from safetraind.diagnosis.diagnosis_facts import BAD, Facts
from safetraind.preflight.check import carry_out, info, passed
from safetraind.preflight.checks import CHECKS


def judge(facts: Facts) -> list[Finding]:
    """Return the device, and each failed check of chip, Python, system and device."""
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
    args = {"kind": device.kind, "name": device.name or facts.machine.host.chip}
    if device.kind == "cpu":
        return [info("diagnosis.gpu_device", **args), *hindrances]
    return [passed("diagnosis.gpu_device", **args)]

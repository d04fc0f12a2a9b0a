"""The storage type of the weights, and its consequences on this device."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, info


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Report the storage type. A quantized base makes the training QLoRA, a floating-point one
    LoRA.
    """
    model = facts.model
    if model.shape is None:
        return []
    if model.bits:
        return [info("model.quantized", bits=model.bits)]
    return [info("model.float", bits=8 * model.shape.item_bytes)]


CHECK = Check("quantization", "model", judge, needs=("repository",))

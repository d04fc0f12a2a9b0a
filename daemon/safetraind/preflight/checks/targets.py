"""Whether each of lora_targets is a layer of the model."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Name the adapter targets that the model does not have: a training of the others alone would
    be another training.
    """
    data = facts.data
    if data is None or not data.missing_targets:
        return []
    missing, known = ", ".join(data.missing_targets), ", ".join(data.known_targets)
    return [failed("model.targets_missing", missing=missing, known=known)]


CHECK = Check("targets", "model", judge, needs=("repository", "architecture"))

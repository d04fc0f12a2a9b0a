"""The model's licence, where it says one."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, info


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Report the licence. It is not judged."""
    if not facts.model.licence:
        return []
    return [info("model.licence", licence=facts.model.licence)]


CHECK = Check("licence", "model", judge, needs=("repository",))

"""Whether the model came with programs, which run only where the user allows it."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, warning


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the model's own code. Beside a known architecture it is not needed and stays unused."""
    model = facts.model
    if not model.own_code:
        return []
    if spec.trust_remote_code:
        return [warning("model.code_trusted", path=model.path)]
    if not model.known:
        return [failed("model.needs_code", path=model.path)]
    return [warning("model.code_unused", path=model.path)]


CHECK = Check("code", "model", judge, needs=("architecture",))

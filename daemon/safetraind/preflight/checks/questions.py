"""The question set of the evaluation after the training: it can be read, and was not trained on."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Refuse a set that the evaluation would refuse, hours later."""
    if facts.data is None:
        return []
    return [failed(p.code, **p.args) for p in facts.data.problems if p.section == "questions"]


CHECK = Check("questions", "data", judge, needs=("data_files",))

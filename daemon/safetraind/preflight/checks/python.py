"""Whether this Python is one that the project supports."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetrain_shared.packages import LEAST_PYTHON, as_numbers
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, passed


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge Python's version. Older ones lack features that the code uses."""
    if as_numbers(facts.python) < LEAST_PYTHON:
        least = ".".join(str(n) for n in LEAST_PYTHON)
        return [failed("dependencies.old_python", version=facts.python, least=least)]
    return [passed("dependencies.found", name="Python", version=facts.python)]


CHECK = Check("python", "dependencies", judge)

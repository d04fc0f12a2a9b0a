"""On a CPU worker: whether MLX finds the compiler that it calls at run time."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, passed, warning


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the C++ compiler. Without g++ `mx.compile` silently runs uncompiled: slower, with the
    same result.
    """
    if facts.host.is_mac:
        return []
    if not facts.compiler:
        return [warning("dependencies.no_compiler")]
    return [passed("dependencies.compiler", path=facts.compiler)]


CHECK = Check("compiler", "dependencies", judge, needs=("packages",))

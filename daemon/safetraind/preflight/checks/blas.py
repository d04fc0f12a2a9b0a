"""On a CPU worker: whether there is a fast BLAS to put in the place of the slow one."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, passed, warning


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the BLAS library. MLX's Linux wheel links a reference BLAS, measured 45 times slower
    than OpenBLAS.
    """
    if facts.host.is_mac:
        return []
    if not facts.openblas:
        return [warning("dependencies.no_blas")]
    return [passed("dependencies.blas", path=facts.openblas)]


CHECK = Check("blas", "dependencies", judge, needs=("packages",))

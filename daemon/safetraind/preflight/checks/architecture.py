"""Checks that mlx-lm implements the architecture and that the sizes of its parts are known."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, passed


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the architecture. A model with code of its own may bring one along, which another check
    judges.
    """
    model = facts.model
    if not model.path:
        return []
    if not model.known and not model.own_code:
        return [failed("model.unknown_architecture", kind=model.model_type)]
    if model.shape is None:
        return [failed("model.no_shape", kind=model.model_type)]
    return [passed("model.architecture", kind=model.model_type)]


CHECK = Check("architecture", "model", judge, needs=("repository",))

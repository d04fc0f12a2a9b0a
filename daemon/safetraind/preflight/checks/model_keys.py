"""Whether mlx-lm follows config.json in all that changes what is computed."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """No finding where every key of the configuration is honoured."""
    data = facts.data
    if data is None or not data.lost_keys:
        return []
    return [failed("model.keys_lost", path=facts.model.path, names=", ".join(data.lost_keys))]


CHECK = Check("model_keys", "model", judge, needs=("repository", "architecture"))

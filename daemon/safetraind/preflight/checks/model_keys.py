"""Whether mlx-lm follows config.json in all that changes what is computed."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, info


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Report the configuration's keys that mlx-lm does not read.

    Return no finding where it honours every key.
    """
    data = facts.data
    if data is None:
        return []
    found = []
    if data.lost_keys:
        names = ", ".join(data.lost_keys)
        found.append(failed("model.keys_lost", path=facts.model.path, names=names))
    if data.dropped_keys:
        found.append(info("model.keys_dropped", names=", ".join(data.dropped_keys)))
    return found


CHECK = Check("model_keys", "model", judge, needs=("repository", "architecture"))

"""Whether the model loads and generates a token, tried in the probe."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, info, passed, warning


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the trial of the model by the probe.

    It is a finding too that another process holds the GPU, so that nothing was tried, or that the
    model is too slow here to be measured in time.
    """
    loaded = facts.loaded
    slow = [warning("model.too_slow", limit=facts.too_slow)] if facts.too_slow else []
    if loaded is None and slow:
        return slow
    if loaded is None:
        return [info("model.not_tried")] if facts.model.path else []
    if loaded.cause is not None:
        return [failed(loaded.cause.code, **dict(loaded.cause.args))]
    return [passed("model.loaded", seconds=loaded.seconds), *slow]


CHECK = Check("loading", "model", judge, needs=("repository", "code", "device"))

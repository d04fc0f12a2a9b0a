"""Whether all files of the model are on this machine."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, info, passed


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the model's download. A model still to be downloaded passes, one that is incomplete
    fails.
    """
    model = facts.model
    if model.cause is not None:
        return [failed(model.cause.code, **model.cause.args)]
    if not model.path:
        if not model.download:
            return [info("model.download_unknown", name=model.name)]
        return [info("model.download", name=model.name, bytes=model.download)]
    if model.missing:
        return [failed("model.incomplete", path=model.path, files=", ".join(model.missing[:5]))]
    if model.reason:
        return [failed("model.unreadable", path=model.path, reason=model.reason)]
    return [passed("model.found", bytes=model.bytes, name=model.name)]


CHECK = Check("repository", "model", judge)

"""Model not found, or downloading: whether it is here, complete, and can be trained."""

from __future__ import annotations

from safetrain_shared.findings import Finding
from safetraind.diagnosis.diagnosis_facts import Facts, checked
from safetraind.preflight.check import info, passed


def judge(facts: Facts) -> list[Finding]:
    """Return findings on the model. That it is not downloaded yet is normal at first."""
    model = facts.machine.model
    cause = facts.history.cause if facts.history else None
    found = checked(("repository", "architecture", "code"), facts)
    if cause is not None and cause.code.startswith("model.") and cause.code not in _codes(found):
        found.insert(0, cause)
    if found:
        return found
    if not model.path:
        return [info("diagnosis.model_to_download", name=model.name, bytes=model.download)]
    return [passed("diagnosis.model_here", path=model.path, bytes=model.bytes)]


def _codes(findings: list[Finding]) -> set[str]:
    return {finding.code for finding in findings}

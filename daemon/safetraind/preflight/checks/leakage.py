"""Validation samples that the training file holds too: their loss then says nothing."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.preflight.check import Check, warning
from safetraind.preflight.facts import Facts


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Counted as lines of the training file, equal after normalisation or nearly equal."""
    data = facts.data
    if data is None or data.train is None or data.valid is None:
        return []
    found = []
    for code in ("data.leak", "data.near_leak"):
        count = data.train.counts.get(code, 0) + data.valid.counts.get(code, 0)
        if count:
            found.append(warning(f"{code}s", count=count))
    return found


CHECK = Check("leakage", "data", judge, needs=("data_files",))

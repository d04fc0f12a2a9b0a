"""Validation samples that the training file holds too: their loss then says nothing."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, warning


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Count the lines of the training file that the validation file repeats.

    Two lines count as the same if they are equal after normalisation, or nearly equal.

    Where the validation file is too large to be held, the finding says how much was compared.
    """
    data = facts.data
    if data is None or data.train is None or data.valid is None:
        return []
    codes = ("data.leak", "data.near_leak")
    counts = {f"{code}s": data.train.counts.get(code, 0) for code in codes}
    found = [warning(code, count=count) for code, count in counts.items() if count]
    return found + [p for p in data.problems if p.code == "data.partly_compared"]


CHECK = Check("leakage", "data", judge, needs=("data_files",))

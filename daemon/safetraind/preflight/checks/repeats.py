"""Samples that stand more than once in a file."""

from pathlib import Path

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, warning


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Count the repeats. A repeated sample is learned as often as it stands there, which may be
    intended.
    """
    data = facts.data
    files = [file for file in (data.train, data.valid) if file] if data else []
    return [
        warning("data.duplicates", name=Path(file.path).name, count=count)
        for file in files
        if (count := file.counts.get("data.duplicate", 0))
    ]


CHECK = Check("repeats", "data", judge, needs=("data_files",))

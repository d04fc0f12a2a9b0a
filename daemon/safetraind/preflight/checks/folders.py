"""Folders that macOS privacy or iCloud makes dangerous for a background service."""

from collections.abc import Iterator
from pathlib import PurePath

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, warning

_PRIVATE = ("Documents", "Desktop", "Downloads")
_CLOUD = ("Mobile Documents", "CloudStorage")


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the job's folders on macOS, where privacy refuses some to agents and iCloud takes files
    away.
    """
    return list(_judge(spec)) if facts.host.is_mac else []


def _judge(spec: JobSpec) -> Iterator[Finding]:
    for path in dict.fromkeys((spec.output, spec.train, spec.valid)):
        parts = PurePath(path).parts
        if len(parts) > 4 and parts[1] == "Users" and parts[3] == "Library" and parts[4] in _CLOUD:
            yield warning("disk.cloud_folder", path=path)
        elif len(parts) > 3 and parts[1] == "Users" and parts[3] in _PRIVATE:
            yield warning("disk.private_folder", path=path, folder=parts[3])


CHECK = Check("folders", "disk", judge)

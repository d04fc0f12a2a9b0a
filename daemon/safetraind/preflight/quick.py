"""The checks of a submit: all that needs no worker, and at once."""

from __future__ import annotations

from pathlib import Path

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec
from safetrain_shared.paths import Home
from safetraind.preflight.check import carry_out
from safetraind.preflight.checks import CHECKS
from safetraind.preflight.course import gather

# The rest need what only a worker can find out; the job is checked again when its turn comes.
_NEED_A_WORKER = frozenset(
    {"packages", "device", "device_limits", "data_files", "problems", "repeats", "leakage"}
    | {"lengths", "loading"}
)


def quick(spec: JobSpec, home: Home, model: Path | None, download: int = 0) -> list[Finding]:
    """What is wrong, or worth knowing, about a job before it is queued; good news are left out.

    A finding that blocks rejects the job. Tens of milliseconds; macOS some hundreds.
    """
    facts = gather(spec, home, model, download)
    checks = [check for check in CHECKS if check.name not in _NEED_A_WORKER]
    found = carry_out(checks, spec, facts, set())
    return [f for f in found if f.status in (Status.FAILED, Status.WARNING)]

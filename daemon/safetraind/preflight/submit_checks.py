"""The first checks of a submit: all that needs no worker, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import carry_out
from safetraind.preflight.checks import CHECKS

# The rest need what only a worker can find out.
_NEED_A_WORKER = frozenset(
    {"packages", "device", "device_limits", "data_files", "problems", "repeats", "leakage"}
    | {"questions", "lengths", "positions", "loading", "model_keys", "targets"}
)


def quick(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Return the failures and warnings of the checks that read no file and need no worker.

    A finding that blocks rejects the job.
    """
    checks = [check for check in CHECKS if check.name not in _NEED_A_WORKER]
    return noteworthy(carry_out(checks, spec, facts, set()))


def noteworthy(findings: Iterable[Finding]) -> list[Finding]:
    """Return failures and warnings."""
    return [f for f in findings if f.status in (Status.FAILED, Status.WARNING)]

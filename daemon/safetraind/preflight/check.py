"""The definition of a check, and the function that runs checks in order.

A check is a pure function of the job's specification and the facts. Where one fails, those that
need it are skipped instead of saying the same thing in other words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from safetrain_shared.errors import ArgValue
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts

Judge = Callable[[JobSpec, Facts], list[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, its section, its judgement, and the checks that it needs to pass."""

    name: str
    section: str
    judge: Judge
    needs: tuple[str, ...] = ()


def carry_out(
    checks: Iterable[Check], spec: JobSpec, facts: Facts, failed: set[str]
) -> Iterator[Finding]:
    """Yield the findings of `checks` in their order. Names of checks that fail are put into
    `failed`.
    """
    for check in checks:
        missing = next((name for name in check.needs if name in failed), "")
        if missing:
            failed.add(check.name)
            args = {"check": check.name, "needs": missing}
            yield Finding("check.skipped", Status.SKIPPED, args=args, section=check.section)
            continue
        for finding in check.judge(spec, facts):
            if finding.status is Status.FAILED:
                failed.add(check.name)
            yield dataclasses.replace(finding, section=check.section)


def passed(code: str, **args: ArgValue) -> Finding:
    """Return a finding that all is well."""
    return Finding(code, Status.PASSED, args=args)


def warning(code: str, **args: ArgValue) -> Finding:
    """Return a finding that the user should know of, and that stops nothing."""
    return Finding(code, Status.WARNING, args=args)


def failed(code: str, **args: ArgValue) -> Finding:
    """Return a finding that stops everything: nothing can be trained until it is mended."""
    return Finding(code, Status.FAILED, blocks=True, args=args)


def failed_softly(code: str, **args: ArgValue) -> Finding:
    """Return a finding that counts as failed and stops nothing."""
    return Finding(code, Status.FAILED, args=args)


def info(code: str, **args: ArgValue) -> Finding:
    """Return a finding that informs and stops nothing."""
    return Finding(code, Status.INFO, args=args)

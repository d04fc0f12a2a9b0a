"""The facts that a diagnosis judges: the machine as preflight sees it, and one job's history."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from safetrain_shared.events import Evaluated
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec, JobState, Plan
from safetraind.planner import facts as preflight
from safetraind.preflight.check import carry_out
from safetraind.preflight.checks import CHECKS


@dataclass(frozen=True, slots=True)
class JobHistory:
    """The history of one job, from its events. A step that ran again after a kill counts once.

    `troubles`: why the job was interrupted or failed, one for each time. `notices`: messages of the
    trainer and of the out-of-memory fallback. The sequences have one entry a logged step or
    evaluation: `losses` are means per learned token, `rates` learning rates,
    `speeds` tokens per second.
    `peak`: bytes.
    """

    id: int
    state: JobState
    spec: JobSpec
    plan: Plan | None = None
    troubles: tuple[Finding, ...] = ()
    notices: tuple[Finding, ...] = ()
    losses: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    evaluations: tuple[Evaluated, ...] = ()
    speeds: tuple[float, ...] = ()
    peak: int = 0
    cause: Finding | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts of a diagnosis.

    `spec`: of the job, or of a default job where there is none. `waiting`, `failed`: numbers of
    jobs; `set_aside`: of those whose files could not be understood. `at_login`: the service starts
    when the user logs in. `agent_python_gone`: the Python that it would start with, if that no
    longer exists; else empty.
    """

    spec: JobSpec
    machine: preflight.Facts
    history: JobHistory | None = None
    waiting: int = 0
    failed: int = 0
    set_aside: int = 0
    at_login: bool = False
    agent_python_gone: str = ""
    versions: dict[str, str] = field(default_factory=dict)


Judge = Callable[[Facts], list[Finding]]

GOOD = Status.PASSED
BAD = (Status.WARNING, Status.FAILED)


def checked(names: Collection[str], facts: Facts) -> list[Finding]:
    """Return the warnings and failures of the preflight checks with these names."""
    chosen = [check for check in CHECKS if check.name in names]
    return [f for f in carry_out(chosen, facts.spec, facts.machine, set()) if f.status in BAD]


def in_section(section: str, finding: Finding) -> Finding:
    """Return the finding with its section set."""
    return dataclasses.replace(finding, section=section)

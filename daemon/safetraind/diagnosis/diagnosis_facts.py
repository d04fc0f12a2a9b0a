"""What a diagnosis judges: the machine as preflight sees it, and one job's story."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec, JobState, Plan
from safetraind.planner import facts as preflight
from safetraind.preflight.check import carry_out
from safetraind.preflight.checks import CHECKS


@dataclass(frozen=True, slots=True)
class Story:
    """One job as its events tell it. Steps run again after a kill count once, as they came last.

    `troubles`: why it was interrupted, failed or is waiting, one for each time. `notices`: what the
    trainer and the back-off said. Losses are means per learned token, `rates` learning rates,
    `paces` tokens per second; bytes for memory.
    """

    id: int
    state: JobState
    spec: JobSpec
    plan: Plan | None = None
    troubles: tuple[Finding, ...] = ()
    notices: tuple[Finding, ...] = ()
    losses: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    evaluations: tuple[float, ...] = ()
    paces: tuple[float, ...] = ()
    peak: int = 0
    cause: Finding | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. `spec` is the job's, or what would be trained where there is none yet; `at_login`:
    the service starts when the user logs in; `agent_python_gone`: the Python that it would start
    with, where that is no longer there.
    """

    spec: JobSpec
    machine: preflight.Facts
    story: Story | None = None
    waiting: int = 0
    failed: int = 0
    at_login: bool = False
    agent_python_gone: str = ""
    versions: dict[str, str] = field(default_factory=dict)


Judge = Callable[[Facts], list[Finding]]

GOOD = Status.PASSED
BAD = (Status.WARNING, Status.FAILED)


def checked(names: Collection[str], facts: Facts) -> list[Finding]:
    """What preflight's checks of these names find, good news and skipped ones left out."""
    chosen = [check for check in CHECKS if check.name in names]
    return [f for f in carry_out(chosen, facts.spec, facts.machine, set()) if f.status in BAD]


def in_section(section: str, finding: Finding) -> Finding:
    """The finding under the heading of its topic."""
    return dataclasses.replace(finding, section=section)

"""Advice for a training that does not fit: which applications to quit, how many bytes that frees,
on a Mac how much of the others' memory to take, and where the user's own budget is too small.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec
from safetraind.host.apps import App
from safetraind.planner.budget import WORKER_BYTES, budget_for, most
from safetraind.planner.facts import Facts

_STEP = 1 << 29  # budgets are proposed in halves of a gigabyte
_GB = 1 << 30


def make_room(
    refusal: Finding,
    spec: JobSpec,
    facts: Facts,
    apps: Sequence[App],
    worker_bytes: int = WORKER_BYTES,
) -> list[Finding]:
    """Return advice on a refusal for memory; empty where there is none.

    `apps`: the largest applications, see `host.largest_apps`. Their memory is at most what quitting
    gives, for a part of it may be compressed already.
    """
    needed, room = int(str(refusal.args["needed"])), int(str(refusal.args["room"]))
    if "budget" not in refusal.args:  # one array is too large: more memory would not help
        return []
    mlx = budget_for(spec, facts, worker_bytes).mlx
    share = room / mlx if mlx else 1.0  # what the margin of the plan leaves

    def room_with(free: int = 0, budget: int = 0) -> int:
        host = dataclasses.replace(facts.host, memory_free=facts.host.memory_free + free)
        asked = dataclasses.replace(spec, memory_budget=budget)
        given = budget_for(asked, dataclasses.replace(facts, host=host), worker_bytes)
        return int(given.mlx * share)

    available, budget = facts.host.memory_available, spec.memory_budget
    budgets = range(_STEP, max(available, most(facts)) + 1, _STEP)
    enough = next((b for b in budgets if room_with(budget=b) >= needed), 0)
    if 0 < budget < enough <= available:  # the user's own limit is in the way, and nothing else
        args = {"budget": enough / _GB, "available": available}
        return [_finding("plan.raise_budget", **args)]
    found = [_finding("plan.close_app", app=app.name, gives=app.bytes) for app in apps]
    if apps:
        then = room_with(free=sum(app.bytes for app in apps))
        code = "plan.close_enough" if then >= needed else "plan.close_not_enough"
        found.append(_finding(code, room=then, needed=needed))
    if enough > available:
        found.append(_finding("plan.squeeze", budget=enough / _GB))
    return found


def _finding(code: str, **args: str | float) -> Finding:
    return Finding(code, Status.INFO, args=args, section="recommendation")

"""What the machines of one training must have alike, and what each may differ in: its memory."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetrain_proto.v1.machines_pb2 import RankTerms
from safetrain_shared.errors import Blocked, Incompatible, InvalidInput
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.packages import PACKAGES
from safetrain_shared.paths import Home
from safetraind import host
from safetraind.planner.budget import Budget, budget_for
from safetraind.preflight.gather_facts import gather_facts
from safetraind.storage import base_weights, documents
from safetraind.storage.job_document import JobDocument

# Clocks date the ends of ranks, by which the one to blame for the others is found.
CLOCK_SECONDS = 30.0
_DISTRIBUTIONS = ("safetrain", *(package.distribution for package in PACKAGES))


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a training. `plan` is None before it is made. `now`: the leader's clock. `rdma`:
    devices that this machine must have.
    """

    document: JobDocument
    plan: Plan | None
    packages: Mapping[str, str]
    model: Mapping[str, str]
    now: float
    leader: str
    leader_name: str
    rdma: Sequence[str] = ()


def own_terms(document: JobDocument, plan: Plan | None, model: Path, home: Home) -> RankTerms:
    """Return the terms of a job that this machine leads. `model`: its folder. Raises OSError."""
    return RankTerms(
        job=json.dumps(documents.to_json(document)),
        plan=json.dumps(documents.to_json(plan)) if plan is not None else "",
        packages=_versions(),
        model=base_weights.facts(model),
        now=time.time(),
        leader=_identity(home),
        leader_name=platform.node(),
    )


def read_terms(message: RankTerms) -> Terms:
    """Return the terms that a leader sent. Raises InvalidInput for what is none, and Incompatible.

    The versions come first: another one may write its documents otherwise.
    """
    check_versions(message.packages)
    try:
        document = documents.parse(json.loads(message.job), JobDocument, "job")
        plan = documents.parse(json.loads(message.plan), Plan, "plan") if message.plan else None
    except (ValueError, RecursionError) as error:
        raise InvalidInput("request.malformed", reason=str(error)[:200]) from None
    return Terms(
        document,
        plan,
        message.packages,
        message.model,
        message.now,
        message.leader,
        message.leader_name,
        message.rdma,
    )


def check_versions(leader: Mapping[str, str]) -> None:
    """Raise Incompatible where a package that computes has another version here."""
    own = _versions()
    other = [
        f"{name} {own[name]} ({leader.get(name, '')})"
        for name in own
        if own[name] != leader.get(name)
    ]
    if other:
        raise Incompatible("machines.versions", machine="", differences=", ".join(other))


def check(terms: Terms, home: Home, model: Path) -> Budget:
    """Return this machine's budget for a rank. `model`: its folder here.

    Raises InvalidInput where the clocks or the models differ or this is the leader itself, and
    Blocked where a device is not there or the planned step does not fit. Reads some megabytes of
    the model.
    """
    if terms.leader == _identity(home):
        raise InvalidInput("machines.itself", machine="")
    check_rdma(terms.rdma)
    off = time.time() - terms.now
    if abs(off) > CLOCK_SECONDS:
        raise InvalidInput("machines.clock", machine="", seconds=round(abs(off)))
    if other := base_weights.changed(terms.model, base_weights.facts(model)):
        name = terms.document.spec.model
        raise InvalidInput("machines.model", machine="", name=name, files=", ".join(other))
    budget = own_budget(terms.document.spec, home, model)
    peak = (terms.plan.measured_peak or terms.plan.predicted_peak) if terms.plan else 0
    if peak > budget.mlx:
        raise Blocked("machines.memory", machine="", needed=peak, room=budget.mlx)
    return budget


def check_rdma(devices: Iterable[str], machine: str = "") -> None:
    """Raise Blocked where this machine lacks one of the RDMA devices."""
    if missing := sorted(set(devices) - host.rdma_devices()):
        raise Blocked("machines.no_rdma", machine=machine, devices=", ".join(missing))


def own_budget(spec: JobSpec, home: Home, model: Path) -> Budget:
    """Return what this machine's memory allows one rank. The budget that the user gave is the
    leader's.
    """
    chosen = {name: value for name, value in spec.settings.items() if name != "ranks"}
    spec = dataclasses.replace(spec, memory_budget=0, settings=chosen)
    return budget_for(spec, gather_facts(spec, home, model))


def own_plan(plan: Plan, model: Path, budget: Budget) -> Plan:
    """Return the leader's plan with this machine's model and limits on memory. They change nothing
    that is computed.
    """
    return dataclasses.replace(
        plan,
        model_path=str(model),
        memory_budget=budget.worker,
        memory_limit=budget.limit,
        cache_limit=budget.cache,
        wired_limit=budget.wired,
    )


def _identity(home: Home) -> str:
    return f"{host.boot_id()} {home.root}"


def _versions() -> dict[str, str]:
    return {name: _version(name) for name in _DISTRIBUTIONS}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""

"""Accepting a job: all or nothing, whatever the disk or the checks say meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from safetrain_shared.errors import Blocked, NoRoom
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec, JobState, Plan
from safetrain_shared.paths import Home, private
from safetraind.conductor import Conductor
from safetraind.jobs.moves import Job
from safetraind.jobs.store import Store
from safetraind.models import Models
from safetraind.planning import Forecast
from safetraind.processes.launcher import Launcher
from safetraind.processes.lease import Lease
from safetraind.processes.supervisor import Supervisor
from safetraind.submission import Submission, Wish
from tests.daemon.conftest import MakeSpec


class FullOnceAccepted(Store):
    """A database that has room for a new job and for nothing more."""

    def save(self, jobs: Iterable[Job], now: float) -> None:
        raise NoRoom("disk.full", path="jobs.db")


class Refusal:
    """Checks that let nothing pass."""

    async def foresee(self, spec: JobSpec, *, idle: bool) -> Forecast:
        raise Blocked("data.empty", path=spec.train)

    async def check(self, spec: JobSpec, launcher: Launcher) -> Plan | Finding:
        raise AssertionError("nothing is to be trained here")


def conductor(folder: Path, store: type[Store] = Store) -> Conductor:
    home = Home(private(folder))
    lease = Lease(home.lease("cpu"))
    return Conductor(home, store(home.database), Supervisor(home), lease, Refusal())


def test_a_job_in_the_database_is_accepted_though_the_disk_is_full_from_there_on(
    home: Path, make_spec: MakeSpec
) -> None:
    async def accept() -> None:
        house = conductor(home, FullOnceAccepted)
        document = {"spec": {"output": str(home / "out")}, "model": {}}
        record = house.accept(document, str(home / "out"))
        assert house.job(record.job.id).state is JobState.QUEUED
        assert [known.job for known in house.store.all()] == [record.job]

    asyncio.run(accept())


def test_a_fresh_submit_that_is_refused_moves_nothing_aside(
    home: Path, make_spec: MakeSpec
) -> None:
    spec = make_spec()
    state = Path(spec.output) / "training_state.json"
    state.parent.mkdir()
    state.write_text("{}")

    async def submit() -> None:
        house = conductor(home)
        with pytest.raises(Blocked):
            await Submission(house, Models(house.home), Refusal()).submit(Wish(spec, fresh=True))

    asyncio.run(submit())
    assert state.exists()

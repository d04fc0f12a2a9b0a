"""Accepting a job: all or nothing, whatever the disk or the checks say meanwhile."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from safetrain_proto.v1 import jobs_pb2, models_pb2
from safetrain_shared.errors import Blocked, Conflict, NoRoom, NotAllowed, SafetrainError
from safetrain_shared.events import StateChanged
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec, JobState, Plan
from safetrain_shared.paths import Home, private
from safetrain_shared.wire import STATUS_DETAILS, error_from_wire
from safetraind.controller.controller import Controller
from safetraind.models.registry import Models
from safetraind.preflight.gather_facts import gather_facts
from safetraind.preflight.job_preflight import Foreseen
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.processes.lease import Lease
from safetraind.processes.supervisor import Supervisor
from safetraind.scheduler.state import Job
from safetraind.service.error_mapping import _explained
from safetraind.storage.job_document import JobDocument, ModelSource
from safetraind.storage.job_store import JobStore
from safetraind.submission import Submission, SubmitRequest
from tests.daemon.conftest import MakeSpec
from tests.daemon.fakes import let_go
from tests.harness import DaemonProcess


class FullOnceAccepted(JobStore):
    """A database that has room for a new job and for nothing more."""

    def save(self, jobs: Iterable[Job], now: float) -> None:
        raise NoRoom("disk.full", path="jobs.db")


class Refusal:
    """Checks that let nothing pass."""

    phase = ""

    async def foresee(self, spec: JobSpec, *, idle: bool) -> Foreseen:
        raise Blocked("data.empty", path=spec.train)

    async def check(self, spec: JobSpec, launcher: EphemeralWorkers) -> Plan | Finding:
        raise AssertionError("nothing is to be trained here")


def controller(folder: Path, store: type[JobStore] = JobStore) -> Controller:
    home = Home(private(folder))
    lease = Lease(home.lease("cpu"))
    return Controller(home, store(home.database), Supervisor(home), lease, Refusal())


def test_a_job_in_the_database_is_accepted_though_the_disk_is_full_from_there_on(
    home: Path, make_spec: MakeSpec
) -> None:
    async def accept() -> None:
        scheduler = controller(home, FullOnceAccepted)
        document = JobDocument(make_spec(), ModelSource("/m"), {})
        record = scheduler.accept(document, str(home / "out"))
        assert scheduler.job(record.job.id).state is JobState.QUEUED
        assert [known.job for known in scheduler.store.all()] == [record.job]

    asyncio.run(accept())


def test_a_fresh_submit_that_is_refused_moves_nothing_aside(
    home: Path, make_spec: MakeSpec
) -> None:
    spec = make_spec()
    state = Path(spec.output) / "training_state.json"
    state.parent.mkdir()
    state.write_text("{}")

    async def submit() -> None:
        scheduler = controller(home)
        with pytest.raises(Blocked):
            await Submission(scheduler, Models(scheduler.home), Refusal()).submit(
                SubmitRequest(spec, fresh=True)
            )

    asyncio.run(submit())
    assert state.exists()


def refused(act: Callable[[], object]) -> SafetrainError:
    with pytest.raises(grpc.RpcError) as caught:
        act()
    error = error_from_wire(dict(caught.value.trailing_metadata())[STATUS_DETAILS])  # type: ignore[attr-defined]
    assert error is not None
    return error


def test_fresh_is_refused_while_a_job_has_the_folder_and_the_way_out_is_named(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    spec = make_spec(name="check=60")
    job = playing.start().submit(spec, idempotency_key="one").job
    error = refused(lambda: playing.submit(spec, fresh=True))
    assert isinstance(error, Conflict)
    assert error.code == "job.fresh_live"
    assert f"safetrain cancel {job.id}" in error.sentence()
    again = playing.submit(spec, fresh=True, idempotency_key="one")
    assert again.job.id == job.id, "the same wish, sent twice, is no other wish"


def test_a_paused_job_names_what_differs_and_takes_other_options(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    job = playing.start().submit(make_spec(name="check=60")).job
    playing.wait_for_state(job.id, JobState.CHECKING)
    playing.jobs.Pause(jobs_pb2.JobRequest(id=job.id))
    playing.wait_for_state(job.id, JobState.PAUSED)
    error = refused(lambda: playing.submit(make_spec(lora_rank=4)))
    assert error.code == "job.output_paused"
    assert error.args_by_name["differences"] == "lora_rank: – → 4"
    other = dataclasses.replace(make_spec(), memory_budget=1 << 30, allow_shorter=True)
    answer = playing.submit(other)
    assert answer.outcome == jobs_pb2.SubmitResponse.OUTCOME_CONTINUED
    assert (answer.job.id, answer.job.spec.memory_budget) == (job.id, 1 << 30)
    document = json.loads(playing.home.run(job.id).spec.read_text())
    assert document["spec"]["allow_shorter"] and document["job"] == job.id
    assert document["spec"]["name"] == "check=60", "only options are taken"


def test_a_job_that_goes_on_takes_the_new_budget_and_is_planned_anew(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(name="holds=load", num_epochs=5)
    job = playing.start().submit(spec).job
    playing.wait_for_state(job.id, JobState.RUNNING)
    playing.jobs.Cancel(jobs_pb2.JobRequest(id=job.id))
    playing.wait_for_state(job.id, JobState.CANCELLED)
    playing.submit(spec)
    playing.wait_for_state(job.id, JobState.RUNNING)
    playing.jobs.Cancel(jobs_pb2.JobRequest(id=job.id))
    playing.wait_for_state(job.id, JobState.CANCELLED)
    assert checks(playing, job.id) == 1, "the same options keep the frozen plan"

    first = playing.submit(make_spec("first", name="check=60")).job
    playing.wait_for_state(first.id, JobState.CHECKING)
    budget = dataclasses.replace(spec, memory_budget=2 << 30)
    answer = playing.submit(budget, after=first.id)
    assert (answer.job.id, answer.job.after) == (job.id, first.id)
    playing.kill()
    playing.start()
    told = playing.job(job.id)
    assert (told.spec.memory_budget, told.after, told.HasField("plan")) == (
        2 << 30,
        first.id,
        False,
    )
    let_go(tmp_path / "out", "load")
    playing.jobs.Cancel(jobs_pb2.JobRequest(id=first.id))
    playing.wait_for_state(job.id, JobState.SUCCEEDED)
    assert checks(playing, job.id) == 2
    assert playing.job(job.id).step == 50


def checks(daemon: DaemonProcess, job_id: int) -> int:
    bodies = [event.body for event in daemon.watch(job_id)]
    return bodies.count(StateChanged(JobState.CHECKING))


def test_no_job_waits_for_itself(playing: DaemonProcess, make_spec: MakeSpec) -> None:
    first = playing.start().submit(make_spec("one", name="check=60")).job.id
    second = playing.submit(make_spec("two"), after=first).job.id
    third = playing.submit(make_spec("three"), after=second).job.id
    error = refused(lambda: playing.submit(make_spec("two"), after=third))
    assert error.code == "job.waits_for_itself"
    assert playing.job(second).after == first
    assert playing.submit(make_spec("three"), after=first).job.after == first


def test_a_model_that_a_job_needs_is_not_removed(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    spec = make_spec(name="check=60")
    shutil.copytree(spec.model, playing.home.models / "mine")
    playing.start()
    job = playing.submit(dataclasses.replace(spec, model="mine")).job
    remove = functools.partial(playing.models.Remove, models_pb2.RemoveModelRequest(name="mine"))
    error = refused(remove)
    assert (error.code, error.args_by_name["id"]) == ("model.in_use", job.id)
    playing.jobs.Cancel(jobs_pb2.JobRequest(id=job.id))
    playing.wait_for_state(job.id, JobState.CANCELLED)
    remove()
    assert not (playing.home.models / "mine").exists()


@pytest.mark.parametrize("fault", [errno.EACCES, errno.EPERM, errno.EXDEV])
def test_what_the_system_refuses_is_no_defect_of_ours(fault: int) -> None:
    error = _explained(PermissionError(fault, os.strerror(fault), "/data/out"))
    assert isinstance(error, NotAllowed)
    assert error.args_by_name["path"] == "/data/out"


def test_folders_that_may_not_be_looked_into_are_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, stat = tmp_path / "closed", os.stat

    def refuse(path: Any, *arguments: Any, **named: Any) -> os.stat_result:
        if str(path).startswith(f"{closed}/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *arguments, **named)

    closed.mkdir()
    monkeypatch.setattr(os, "stat", refuse)
    home = Home(private(tmp_path / "home"))
    with pytest.raises(NotAllowed):
        Models(home).resolve(str(closed / "model"))
    facts = gather_facts(JobSpec("m", "t", "v", str(closed / "out")), home, None)
    assert facts.disk.output == str(closed / "out")


def test_every_service_says_that_it_serves(playing: DaemonProcess) -> None:
    stub = health_pb2_grpc.HealthStub(playing.start().channel)
    for service in ("", "safetrain.v1.Jobs", "safetrain.v1.Answers", "safetrain.v1.Preflight"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

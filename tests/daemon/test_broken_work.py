"""What breaks in the daemon unforeseen: one job may fail for it, with a sentence, and no other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from safetrain_proto.v1 import data_pb2
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState
from safetraind.models.registry import Models
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.scheduler import state_machine, triggers
from safetraind.scheduler.effects import DropLease, EmitEvent, TakeLease
from safetraind.scheduler.state import ASKED, HELD, Job, SchedulerState
from safetraind.service.data import MOST_READERS, DataService
from safetraind.storage.run_folder import KeeperNote
from safetraind.worker_messages.inspect_messages import InspectResult
from safetraind.worker_messages.worker_result import WorkerResult
from tests.daemon.conftest import PLAY, MakeSpec
from tests.harness import DaemonProcess

CONTROLLER = "safetraind.controller.controller:"
BREAKS = {
    "the end of a worker": "safetraind.controller.trainings:read_end",
    "reading a record after it was saved": "safetraind.storage.job_store:JobStore.get",
    "telling a state": "safetraind.controller.job_files:emit_event.emit",
    "waiting for the lease": "safetraind.controller.gpu_lease:GpuLease.take",
    "following a training": "safetraind.storage.event_feed:EventFeed.look",
    "judging that the lease is there": CONTROLLER + "state_machine.decide@3",
    "judging that a check has passed": CONTROLLER + "state_machine.decide@5",
    "waking up at the start": CONTROLLER + "state_machine.decide",
}

AND_AFTER_A_RESTART = ("the end of a worker", "telling a state")


@pytest.mark.parametrize("what", BREAKS)
def test_what_breaks_once_leaves_neither_lease_nor_queue_wedged(
    what: str, home: Path, make_spec: MakeSpec
) -> None:
    broken = DaemonProcess(home, PLAY, {"PLAY_BREAK": BREAKS[what]})
    try:
        broken.start()
        jobs = [
            broken.submit(make_spec(name, name="pace=0", num_epochs=1)).job.id
            for name in ("one", "two")
        ]
        states = [broken.wait_for_state(job, seconds=30) for job in jobs]
        assert states[1] is JobState.SUCCEEDED
        if states[0] is JobState.FAILED:
            assert "unforeseen" in broken.job(jobs[0]).cause.text
        if what not in AND_AFTER_A_RESTART:
            return
        broken.kill()
        broken._env.clear()
        broken.start()
        last = broken.submit(make_spec("three", name="pace=0", num_epochs=1)).job.id
        assert broken.wait_for_state(last, seconds=30) is JobState.SUCCEEDED
    finally:
        broken.end()


def test_work_that_broke_fails_that_job_alone_and_frees_the_lease() -> None:
    cause = Finding("daemon.broken")
    jobs = {1: Job(1, JobState.RUNNING), 2: Job(2)}
    after, effects = state_machine.decide(SchedulerState(jobs, HELD), triggers.WorkBroke(1, cause))
    assert after.jobs[1].state is JobState.FAILED and after.jobs[2] == jobs[2]
    assert after.lease == ASKED
    assert effects == [EmitEvent(1, JobState.FAILED, cause), DropLease(), TakeLease()]


def test_work_that_broke_on_a_job_that_has_ended_changes_nothing() -> None:
    ended = SchedulerState({1: Job(1, JobState.SUCCEEDED)})
    assert state_machine.decide(ended, triggers.WorkBroke(1, Finding("x"))) == (ended, [])


def test_a_file_more_than_may_be_validated_at_once_is_refused_until_one_is_done() -> None:
    go = asyncio.Event()

    class Launcher:
        async def run_worker(self, *args: Any, **named: Any) -> WorkerResult[InspectResult]:
            await go.wait()
            return WorkerResult(KeeperNote(), InspectResult())

    service = DataService(cast(EphemeralWorkers, Launcher()), cast(Models, None))
    request = data_pb2.ValidateRequest(paths=["/a.jsonl"])

    async def read() -> list[data_pb2.ValidateEvent]:
        return [event async for event in service.Validate(request, Refused())]

    async def scenario() -> None:
        reading = [asyncio.create_task(read()) for _ in range(MOST_READERS)]
        await asyncio.sleep(0)
        with pytest.raises(AssertionError, match="UNAVAILABLE"):
            await read()
        go.set()
        assert await asyncio.gather(*reading) == [[]] * MOST_READERS
        assert await read() == []

    asyncio.run(scenario())


class Refused:
    """A call's context that raises what the call was refused with."""

    async def abort(self, code: grpc.StatusCode, text: str, details: object) -> None:
        raise AssertionError(f"{code.name}: {text}")

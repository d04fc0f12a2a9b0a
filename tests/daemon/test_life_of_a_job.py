"""A job from submit to its end, with real processes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import grpc
import pytest

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.events import Outcome, StateChanged, StepDone
from safetrain_shared.jobs import JobState
from safetrain_shared.wire import STATUS_DETAILS, error_from_wire, spec_to_wire
from tests.daemon.conftest import MakeSpec
from tests.daemon.fakes import let_go
from tests.harness import DaemonProcess, wait_for


def test_a_job_is_queued_checked_trained_and_told_event_by_event(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    playing.start()
    answer = playing.submit(make_spec(num_epochs=1))
    assert answer.outcome == jobs_pb2.SubmitResponse.OUTCOME_QUEUED
    events = list(playing.watch(answer.job.id, follow=True))
    states = [e.body.state for e in events if isinstance(e.body, StateChanged)]
    assert states == [JobState.QUEUED, JobState.CHECKING, JobState.RUNNING, JobState.SUCCEEDED]
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert [e.body.step for e in events if isinstance(e.body, StepDone)] == list(range(1, 11))
    assert [e.body.outcome for e in events if isinstance(e.body, Outcome)] == ["succeeded"]
    wait_for(lambda: not playing.workers() and not playing.keepers())


def test_a_second_job_waits_its_turn(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    playing.start()
    first = playing.submit(make_spec("one", name="hold=3")).job
    second = playing.submit(make_spec("two")).job
    playing.wait_for_state(first.id, JobState.RUNNING)
    assert playing.job(second.id).queue_position == 1
    assert playing.job(second.id).HasField("start_eta_seconds")
    let_go(tmp_path / "one")
    playing.wait_for_state(second.id, JobState.SUCCEEDED)
    assert playing.state(first.id) is JobState.SUCCEEDED
    assert json.loads((tmp_path / "two" / "result.json").read_text())[0] == 30


def test_the_queue_can_be_reordered_and_chained_and_ended_jobs_retried_and_removed(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    playing.start()
    first = playing.submit(make_spec("one", name="hold=3", num_epochs=10)).job.id
    second = playing.submit(make_spec("two", num_epochs=1), after=first).job.id
    third = playing.submit(make_spec("three", num_epochs=1)).job.id
    assert (playing.job(second).queue_position, playing.job(third).queue_position) == (1, 2)
    playing.jobs.Move(jobs_pb2.MoveJobRequest(id=third, first=True))
    assert (playing.job(second).queue_position, playing.job(third).queue_position) == (2, 1)
    playing.jobs.Pause(jobs_pb2.JobRequest(id=first))
    playing.wait_for_state(third, JobState.SUCCEEDED)
    assert playing.state(second) is JobState.QUEUED, "it waits for the first, which is paused"
    playing.jobs.Cancel(jobs_pb2.JobRequest(id=first))
    playing.wait_for_state(second, JobState.SUCCEEDED)

    let_go(tmp_path / "one")
    playing.jobs.Retry(jobs_pb2.JobRequest(id=first))
    playing.wait_for_state(first, JobState.SUCCEEDED)
    assert json.loads((tmp_path / "one" / "result.json").read_text())[0] == 100
    playing.jobs.Remove(jobs_pb2.RemoveJobRequest(id=first))
    assert not playing.home.run(first).root.exists()
    left = [job.id for job in playing.jobs.List(jobs_pb2.ListJobsRequest()).jobs]
    assert left == [second, third]
    assert playing.submit(make_spec("four")).job.id == third + 1, "no id is used again"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("train", "relative.jsonl", "path.relative"),
        ("train", "/nowhere/train.jsonl", "path.missing"),
        ("valid", "/tmp", "path.not_a_file"),
        ("output", "/dev/null", "path.not_a_folder"),
        ("output", "out", "path.relative"),
        ("model", "/nowhere/model", "path.missing"),
        ("model", "no such model", "model.unknown"),
    ],
)
def test_bad_input_is_refused_at_once_with_what_is_wrong(
    field: str, value: str, code: str, playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    playing.start()
    with pytest.raises(grpc.RpcError) as caught:
        playing.submit(dataclasses.replace(make_spec(), **{field: value}))
    trailers = dict(caught.value.trailing_metadata())  # type: ignore[attr-defined]
    error = error_from_wire(trailers[STATUS_DETAILS])
    assert error is not None
    assert error.code == code
    assert not playing.jobs.List(jobs_pb2.ListJobsRequest()).jobs


def test_a_setting_out_of_range_is_refused_by_the_daemon_too(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    playing.start()
    request = jobs_pb2.SubmitRequest(spec=spec_to_wire(make_spec()))
    request.spec.settings.lora_dropout = 7.0
    with pytest.raises(grpc.RpcError) as caught:
        playing.jobs.Submit(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert "lora_dropout" in caught.value.details()  # type: ignore[attr-defined]


def test_what_blocks_in_the_check_fails_the_job_with_its_cause(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    job = playing.start().submit(make_spec(name="refuse=job.out_of_memory")).job.id
    playing.wait_for_state(job, JobState.FAILED)
    assert playing.job(job).cause.code == "job.out_of_memory"
    assert playing.job(job).attempt == 0

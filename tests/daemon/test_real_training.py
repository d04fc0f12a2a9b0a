"""The daemon with the real workers and a tiny model: preflight, training, kills, questions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from safetrain_proto.v1 import answers_pb2, data_pb2, jobs_pb2, preflight_pb2
from safetrain_shared.errors import Busy, Conflict
from safetrain_shared.events import CheckpointSaved, StateChanged, StepDone
from safetrain_shared.jobs import JobSpec, JobState
from safetrain_shared.wire import STATUS_DETAILS, error_from_wire, spec_to_wire
from tests.harness import DaemonProcess, kill_all, wait_for
from tests.tiny import make_chat_data, make_tiny_model

SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "gradient_accumulation": 1,
    "max_seq_length": 64,
    "num_epochs": 2,
    "log_steps": 1,
    "save_steps": 3,
    "eval_steps": 6,
    "lora_layers": 2,
    "learning_rate": 1e-3,
    "seed": 7,
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_model(folder / "model")
    make_chat_data(folder, train=20, valid=6)
    return folder


def spec_of(tiny: Path, output: Path, **settings: Any) -> JobSpec:
    return JobSpec(
        model=str(tiny / "model"),
        train=str(tiny / "train.jsonl"),
        valid=str(tiny / "valid.jsonl"),
        output=str(output),
        settings=SETTINGS | settings,
    )


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "adapters" / "adapters.safetensors").read_bytes()).hexdigest()


def ask(daemon: DaemonProcess, **fields: Any) -> list[answers_pb2.AskEvent]:
    message = answers_pb2.Message(role="user", content="Em que cidade joga o clube?")
    request = answers_pb2.AskRequest(messages=[message], max_tokens=4, **fields)
    return list(daemon.answers.Ask(request, timeout=90))


def error_of(caught: pytest.ExceptionInfo[grpc.RpcError]) -> Any:
    trailers = dict(caught.value.trailing_metadata())  # type: ignore[attr-defined]
    return error_from_wire(trailers[STATUS_DETAILS])


@pytest.mark.compiled
def test_a_training_in_segments_ends_with_the_same_adapter(
    daemon: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    short: dict[str, Any] = {"batch_size": 4, "max_steps": 3, "lora_dropout": 0.1}
    segments: dict[str, Any] = {"segment_minutes": 1e-6, "rest_minutes": 1e-6}
    whole = daemon.submit(spec_of(tiny, tmp_path / "whole", **short)).job
    parts = daemon.submit(spec_of(tiny, tmp_path / "parts", **short, **segments)).job
    daemon.wait_for_state(parts.id, JobState.SUCCEEDED, seconds=180)
    assert daemon.state(whole.id) is JobState.SUCCEEDED
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    bodies = [event.body for event in daemon.watch(parts.id)]
    rests = [b for b in bodies if isinstance(b, StateChanged) and b.cause is not None]
    assert {b.cause.code for b in rests if b.cause} == {"train.segment"}
    assert daemon.job(parts.id).attempt == len(rests) + 1 == 3, "a segment a step"
    steps = [b.step for b in bodies if isinstance(b, StepDone)]
    assert steps == sorted(set(steps)), "no step was computed twice"


@pytest.mark.compiled
def test_a_killed_training_ends_with_the_same_adapter_and_every_event_once(
    daemon: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    calm = daemon.submit(spec_of(tiny, tmp_path / "calm")).job
    daemon.wait_for_state(calm.id, JobState.SUCCEEDED, seconds=120)
    wild = daemon.submit(spec_of(tiny, tmp_path / "wild")).job
    wait_for(lambda: daemon.job(wild.id).step >= 5, 90, "training is under way")
    kill_all([*daemon.workers(), *daemon.keepers()])
    daemon.kill()
    daemon.start()
    daemon.wait_for_state(wild.id, JobState.SUCCEEDED, seconds=120)
    assert digest(tmp_path / "wild") == digest(tmp_path / "calm")
    events = list(daemon.watch(wild.id))
    watermark = [event.seq for event in events]
    assert watermark == sorted(set(watermark))
    last = {e.body.step: e.body.loss for e in events if isinstance(e.body, StepDone)}
    other = daemon.watch(calm.id)
    assert last == {e.body.step: e.body.loss for e in other if isinstance(e.body, StepDone)}
    states = [e.body.state for e in events if isinstance(e.body, StateChanged)]
    assert JobState.INTERRUPTED in states
    assert [e for e in events if isinstance(e.body, CheckpointSaved)]


def test_preflight_streams_its_sections_and_writes_its_files(
    daemon: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    request = preflight_pb2.PreflightRequest(spec=spec_to_wire(spec_of(tiny, tmp_path / "out")))
    events = list(daemon.preflight.Run(request, timeout=120))
    sections = [e.section.section for e in events if e.HasField("section")]
    assert sections[0] == "hardware"
    assert sections[-1] == "recommendation"
    assert [e.recommendation.measured for e in events if e.HasField("recommendation")] == [True]
    summary = events[-1].summary
    assert not summary.blocked
    report = json.loads(Path(summary.report_path).read_text())
    assert report
    assert Path(summary.config_path).name == "recommended_config.json"
    wait_for(lambda: not daemon.workers())


def test_validate_names_the_line_of_every_problem(daemon: DaemonProcess, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"messages": [}\n')
    events = list(daemon.data.Validate(data_pb2.ValidateRequest(paths=[str(file)]), timeout=60))
    problems = [e.problem for e in events if e.HasField("problem")]
    assert [problem.args["line"] for problem in problems] == [1]
    assert [e.summary.path for e in events if e.HasField("summary")] == [str(file)]


@pytest.mark.compiled
def test_questions_go_to_the_base_then_to_the_training_then_to_the_best_adapter(
    daemon: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    model = str(tiny / "model")
    answer = ask(daemon, model=model)
    assert [e.source.job_id for e in answer if e.HasField("source")] == [0]
    assert answer[-1].HasField("done")
    warm = daemon.workers()
    assert len(warm) == 1
    assert any(e.HasField("done") for e in ask(daemon, model=model))
    assert daemon.workers() == warm, "it stays warm"

    first = daemon.submit(spec_of(tiny, tmp_path / "one", num_epochs=1)).job
    daemon.wait_for_state(first.id, JobState.SUCCEEDED, seconds=120)
    source = next(e.source for e in ask(daemon) if e.HasField("source"))
    assert (source.job_id, source.training) == (first.id, False)
    assert Path(source.adapter) == tmp_path / "one" / "adapters"

    second = daemon.submit(spec_of(tiny, tmp_path / "two", num_epochs=200)).job
    wait_for(lambda: daemon.job(second.id).step > 2, 60, "the second job trains")
    source = next(e.source for e in ask(daemon) if e.HasField("source"))
    assert (source.job_id, source.training) == (second.id, True)
    assert source.step > 2
    with pytest.raises(grpc.RpcError) as caught:
        ask(daemon, job_id=first.id)
    assert isinstance(error_of(caught), Busy)
    daemon.jobs.Cancel(jobs_pb2.JobRequest(id=second.id))
    daemon.wait_for_state(second.id, JobState.CANCELLED)
    log = (daemon.home.log).read_text()
    assert "Em que cidade" not in log


def test_the_output_folder_decides_whether_a_submit_attaches_continues_or_is_refused(
    daemon: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    outcome = jobs_pb2.SubmitResponse
    output = tmp_path / "out"
    spec = spec_of(tiny, output, num_epochs=100)
    job = daemon.submit(spec).job
    assert daemon.submit(spec).outcome == outcome.OUTCOME_ATTACHED
    with pytest.raises(grpc.RpcError) as caught:
        daemon.submit(spec_of(tiny, output, learning_rate=0.1))
    assert error_of(caught).code == "job.output_taken"
    wait_for(lambda: daemon.job(job.id).step > 3, 90)
    daemon.jobs.Cancel(jobs_pb2.JobRequest(id=job.id))
    daemon.wait_for_state(job.id, JobState.CANCELLED)

    with pytest.raises(grpc.RpcError) as caught:
        daemon.submit(spec_of(tiny, output, learning_rate=0.1))
    error = error_of(caught)
    assert isinstance(error, Conflict)
    assert error.code == "job.output_differs"
    assert error.args_by_name["differences"] == "learning_rate: 0.001 → 0.1, num_epochs: 100 → 2"
    again = daemon.submit(spec)
    assert (again.outcome, again.job.id) == (outcome.OUTCOME_CONTINUED, job.id)
    wait_for(lambda: daemon.job(job.id).attempt == 2 and daemon.job(job.id).step > 5, 60)
    daemon.jobs.Cancel(jobs_pb2.JobRequest(id=job.id))
    daemon.wait_for_state(job.id, JobState.CANCELLED)

    (output / "notes.txt").write_text("mine")
    fresh = daemon.submit(spec_of(tiny, output, num_epochs=1), fresh=True)
    assert fresh.outcome == outcome.OUTCOME_QUEUED
    daemon.wait_for_state(fresh.job.id, JobState.SUCCEEDED, seconds=120)
    assert (tmp_path / "out.previous-1" / "training_state.json").exists()
    assert not (tmp_path / "out.previous-1" / "notes.txt").exists()
    with pytest.raises(grpc.RpcError) as caught:
        daemon.submit(spec_of(tiny, output, num_epochs=1))
    assert error_of(caught).code == "job.output_finished"
    kept = daemon.jobs.Remove(jobs_pb2.RemoveJobRequest(id=fresh.job.id, files=True)).kept
    assert str(output / "notes.txt") in kept
    assert not (output / "adapters").exists()

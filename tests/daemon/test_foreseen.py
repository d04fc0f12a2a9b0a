"""What a submit sees at once, and what it leaves to the job's turn; with the real checks."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.errors import Blocked
from safetrain_shared.evaluations import EvaluationSpec
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import DEFAULT_MODEL, JobSpec, Plan
from safetrain_shared.paths import Home, private
from safetrain_shared.settings import TrainingSettings
from safetrain_shared.wire import STATUS_DETAILS, error_from_wire
from safetraind.models.registry import Models
from safetraind.preflight import job_preflight
from safetraind.preflight.job_preflight import Planning
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.processes.locks import try_lock
from safetraind.processes.supervisor import Supervisor
from safetraind.storage import training_state
from safetraind.storage.training_state import TrainingState
from safetraind.worker_messages.inspect_messages import InspectLine
from tests.harness import DaemonProcess
from tests.tiny import make_chat_data, make_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreseen")
    make_tiny_model(folder / "model", layers=2)
    make_chat_data(folder, train=20, valid=6)
    return folder


@pytest.fixture
def spec(tiny: Path, tmp_path: Path) -> JobSpec:
    files = [str(tiny / f"{name}.jsonl") for name in ("train", "valid")]
    settings: dict[str, Any] = {"num_epochs": 2, "batch_size": 2, "gradient_accumulation": 1}
    return JobSpec(str(tiny / "model"), *files, str(tmp_path / "out"), settings=settings)


@pytest.fixture
def busy_gpu(home: Path) -> Iterator[int]:
    """Somebody else holds the GPU lease, so that a job stays in the queue."""
    path = Home(home).lease("cpu")
    private(path.parent)
    descriptor = try_lock(path)
    assert descriptor is not None
    yield descriptor
    os.close(descriptor)


def refused(daemon: DaemonProcess, spec: JobSpec) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        daemon.submit(spec)
    return error_from_wire(dict(caught.value.trailing_metadata())[STATUS_DETAILS])  # type: ignore[attr-defined]


def test_bad_data_and_what_can_never_fit_are_rejected_at_once(
    daemon: DaemonProcess, spec: JobSpec, tmp_path: Path
) -> None:
    wrong, empty = tmp_path / "wrong.jsonl", tmp_path / "empty.jsonl"
    wrong.write_text(Path(spec.train).read_text() + '{"messages": [}\n')
    empty.write_text("")
    error = refused(daemon, dataclasses.replace(spec, train=str(wrong)))
    assert isinstance(error, Blocked)
    assert (error.code, error.args_by_name["line"]) == ("data.errors", 21)
    error = refused(daemon, dataclasses.replace(spec, valid=str(empty)))
    assert (error.code, error.args_by_name["path"]) == ("data.no_samples", str(empty))
    error = refused(daemon, dataclasses.replace(spec, memory_budget=100 << 20))
    assert error.code.startswith("plan.refused")
    assert not daemon.jobs.List(jobs_pb2.ListJobsRequest()).jobs
    assert not Path(spec.output).exists(), "a submit that is refused writes nothing"


def test_questions_that_could_not_be_asked_after_hours_are_refused_at_once(
    daemon: DaemonProcess, spec: JobSpec, tmp_path: Path
) -> None:
    def error(asked: Path, **how: Any) -> Any:
        evaluation = EvaluationSpec(questions=str(asked), **how)
        return refused(daemon, dataclasses.replace(spec, evaluation=evaluation))

    lines = [json.loads(line) for line in Path(spec.train).read_text().splitlines()]
    trained = [line["messages"][0]["content"] for line in lines[:2]]
    mixed = tmp_path / "mixed.jsonl"
    asked = [{"question": text, "answer": "Sim."} for text in (*trained, "Quem fez o hino?")]
    mixed.write_text("\n".join(map(json.dumps, asked)))
    first = error(mixed)
    assert isinstance(first, Blocked) and first.code == "evaluate.leaked"
    assert (first.args_by_name["count"], first.args_by_name["first"]) == (2, trained[0])
    assert error(mixed, limit=1).args_by_name["count"] == 1
    odd = tmp_path / "questions.jsonl"
    odd.write_text('{"question": "Quem?", "answer": "Eu", "match": "exact"}\n{"question": 3}\n')
    second = error(odd)
    assert (second.code, second.args_by_name["line"]) == ("evaluate.bad_line", 2)


def test_a_queued_job_has_its_predicted_plan_and_no_invented_time(
    busy_gpu: int, daemon: DaemonProcess, spec: JobSpec
) -> None:
    answer = daemon.submit(spec)
    assert answer.job.forecast.total_steps == 20
    assert answer.job.forecast.settings.batch_size == 2
    assert "plan.estimated" in [finding.code for finding in answer.findings]
    assert not answer.job.HasField("eta_seconds"), "nothing was ever measured here"
    daemon.kill()
    daemon.start()
    assert daemon.job(answer.job.id).forecast == answer.job.forecast


def test_a_model_that_cannot_be_had_is_refused_at_submit(
    home: Path, spec: JobSpec, tmp_path: Path
) -> None:
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    daemon = DaemonProcess(home, env=environment).start()
    try:
        error = refused(daemon, dataclasses.replace(spec, model=DEFAULT_MODEL))
        assert error.code == "model.hub_offline"
        assert DEFAULT_MODEL in str(error) and "Check the network" in str(error)
        assert not daemon.jobs.List(jobs_pb2.ListJobsRequest()).jobs
    finally:
        daemon.end()


class SlowWorkers:
    """An inspection that does not end; once it has found something, its time is up."""

    has_lease = False
    found: tuple[Finding, ...] = ()

    def __init__(self, *_: object) -> None:
        pass

    async def run_worker(self, role: Any, request: Any, **how: Any) -> Any:
        for finding in self.found:
            how["on_progress"](InspectLine(problem=finding))
        if self.found:
            raise TimeoutError
        await asyncio.Event().wait()


def test_large_files_are_read_for_a_bounded_time_and_bad_lines_seen_by_then_reject(
    home: Path, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_preflight, "FORESEE_SECONDS", 0.05)
    monkeypatch.setattr(job_preflight, "EphemeralWorkers", SlowWorkers)
    place = Home(home)
    private(place.root)

    def foresee() -> job_preflight.Foreseen:
        plans = Planning(place, Models(place), Supervisor(place))
        return asyncio.run(plans.foresee(spec, idle=True))

    foreseen = foresee()
    assert foreseen.forecast.plan is None
    assert foreseen.findings[-1].code == "data.not_inspected"
    monkeypatch.setattr(job_preflight, "FORESEE_SECONDS", 60.0)
    bad = Finding("data.no_answer", Status.FAILED, args={"path": spec.train, "line": 3})
    monkeypatch.setattr(SlowWorkers, "found", (bad,))
    with pytest.raises(Blocked) as caught:
        foresee()
    assert (caught.value.code, caught.value.args_by_name["line"]) == ("data.errors", 3)


def test_while_others_hold_the_memory_a_job_is_judged_by_what_the_machine_has(
    home: Path, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Home(home)
    private(place.root)
    gather = job_preflight.gather_facts

    def full(*arguments: Any) -> Any:
        facts = gather(*arguments)
        return dataclasses.replace(facts, host=dataclasses.replace(facts.host, memory_free=1 << 20))

    monkeypatch.setattr(job_preflight, "gather_facts", full)
    plans = Planning(place, Models(place), Supervisor(place))
    with pytest.raises(Blocked) as caught:
        asyncio.run(plans.foresee(spec, idle=True))
    assert caught.value.code == "hardware.memory_short"
    plans = Planning(place, Models(place), Supervisor(place))
    assert asyncio.run(plans.foresee(spec, idle=False)).forecast.plan is not None


def test_a_training_that_goes_on_under_a_new_budget_keeps_its_schedule(
    home: Path, spec: JobSpec
) -> None:
    chosen = {"num_epochs": 2, "batch_size": 4, "seed": 3}
    spec = dataclasses.replace(spec, settings=chosen, memory_budget=8 << 30)
    frozen = TrainingSettings(
        batch_size=2, gradient_accumulation=8, max_seq_length=64, num_epochs=2, seed=3
    )
    state = TrainingState(1, "cancelled", "f", plan=Plan(frozen, spec.model), checkpoints=("c",))
    Path(spec.output).mkdir()
    training_state.write(Path(spec.output), state)
    place = Home(home)
    private(place.root)
    planned = Planning(place, Models(place), Supervisor(place))
    plan = asyncio.run(planned.check(spec, EphemeralWorkers(place, Supervisor(place))))
    assert isinstance(plan, Plan)
    assert plan.settings.effective_batch == 16
    assert plan.memory_budget == 8 << 30
    for name in ("max_seq_length", "learning_rate", "num_epochs", "seed", "lora_rank"):
        assert getattr(plan.settings, name) == getattr(frozen, name)

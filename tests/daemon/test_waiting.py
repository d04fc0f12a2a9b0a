"""What waits for the GPU, or for a download, and says so: preflight, and a question."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from safetrain_proto.v1 import answers_pb2, jobs_pb2, models_pb2, preflight_pb2
from safetrain_shared.findings import SECTIONS
from safetrain_shared.jobs import DEFAULT_MODEL, JobSpec, JobState
from safetrain_shared.paths import Home
from safetrain_shared.wire import spec_to_wire
from safetraind.processes.locks import try_lock
from tests import hub
from tests.daemon.test_faults import error_of
from tests.harness import DaemonProcess, wait_for
from tests.tiny import make_chat_data, make_tiny_model

SETTINGS: dict[str, Any] = {"batch_size": 2, "max_seq_length": 64, "num_epochs": 1, "log_steps": 1}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("waiting")
    make_tiny_model(folder / "model", layers=2)
    make_chat_data(folder, train=12, valid=4)
    return folder


def spec_of(tiny: Path, output: Path, model: str = "", **settings: Any) -> JobSpec:
    files = [str(tiny / f"{name}.jsonl") for name in ("train", "valid")]
    model = model or str(tiny / "model")
    return JobSpec(model, *files, str(output), settings=SETTINGS | settings)


def preflight(daemon: DaemonProcess, spec: JobSpec, *, wait: bool = False) -> Iterator[Any]:
    request = preflight_pb2.PreflightRequest(spec=spec_to_wire(spec), wait=wait)
    yield from daemon.preflight.Run(request, timeout=90)


def codes(events: list[Any], section: str = "") -> list[str]:
    """The codes of the findings, all or of one section."""
    findings = [e.finding for e in events if e.HasField("finding")]
    return [f.code for f in findings if section in ("", f.section)]


def sections(events: list[Any]) -> list[str]:
    return [e.section.section for e in events if e.HasField("section")]


def phases(events: list[Any]) -> list[str]:
    return [e.progress.phase for e in events if e.HasField("progress")]


def test_preflight_streams_what_needs_no_gpu_and_with_wait_measures_once_it_is_free(
    daemon: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    lease = try_lock(Home(daemon.home.root).lease("cpu"))
    assert lease is not None
    predicted = list(preflight(daemon, spec_of(tiny, tmp_path / "out")))
    assert "gpu.busy" in codes(predicted)
    assert "queue" not in phases(predicted)

    events = []
    for event in preflight(daemon, spec_of(tiny, tmp_path / "out"), wait=True):
        events.append(event)
        if event.progress.phase == "queue":
            assert sections(events) == ["hardware", "dependencies", "gpu"]
            assert "dependencies.found" in codes(events), "all that needs no GPU has come"
            os.close(lease)
    assert phases(events).count("queue") == 1
    assert sections(events) == list(SECTIONS)
    assert [e.recommendation.measured for e in events if e.HasField("recommendation")] == [True]
    lease = try_lock(Home(daemon.home.root).lease("cpu"))
    assert lease is not None, "it was given back"
    os.close(lease)


def test_without_a_network_all_other_sections_come_and_the_report_says_what_to_do(
    home: Path, tiny: Path, tmp_path: Path
) -> None:
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    daemon = DaemonProcess(home, env=environment)
    try:
        events = list(preflight(daemon.start(), spec_of(tiny, tmp_path / "out", DEFAULT_MODEL)))
    finally:
        daemon.end()
    assert sections(events) == list(SECTIONS)
    assert codes(events, "model")[0] == "model.hub_offline"
    assert {"data.train", "data.valid"} <= set(codes(events, "data"))
    assert codes(events, "disk")
    said = next(e.finding.text for e in events if e.finding.code == "model.hub_offline")
    assert DEFAULT_MODEL in said and "Check the network" in said
    assert events[-1].summary.blocked
    report = json.loads(Path(events[-1].summary.report_path).read_text())
    assert said in [finding["text"] for finding in report["findings"]]


def test_a_model_of_the_hub_is_fetched_in_its_section_with_its_progress(
    home: Path, tiny: Path, tmp_path: Path
) -> None:
    with hub.serving(tiny / "model") as environment:
        daemon = DaemonProcess(home, env={**environment, "HF_HOME": str(tmp_path / "hf")})
        try:
            spec = spec_of(tiny, tmp_path / "out", hub.REPOSITORY)
            events = list(preflight(daemon.start(), spec))
        finally:
            daemon.end()
    assert sections(events) == list(SECTIONS)
    downloading = [e for e in events if e.progress.phase == "downloading"]
    assert downloading[-1].progress.done == 1.0
    begun = events.index(downloading[0])
    assert sections(events[:begun])[-1] == "model"
    assert "data.train" in codes(events[:begun]), "what is wrong with the data is known before"
    assert "data.lengths" in codes(events[begun:], "data"), "these need the model's tokenizer"
    assert codes(events).count("data.train") == 1
    assert {"model.found", "model.loaded"} <= set(codes(events, "model"))
    assert [e.recommendation.measured for e in events if e.HasField("recommendation")] == [True]


def test_a_model_for_which_there_is_no_room_is_not_begun(
    home: Path, tiny: Path, tmp_path: Path
) -> None:
    with hub.serving(tiny / "model", sizes={"model.safetensors": 1 << 60}) as environment:
        daemon = DaemonProcess(home, env={**environment, "HF_HOME": str(tmp_path / "hf")})
        try:
            spec = spec_of(tiny, tmp_path / "out", hub.REPOSITORY)
            events = list(preflight(daemon.start(), spec))
            with pytest.raises(grpc.RpcError) as refused:
                daemon.submit(spec)
        finally:
            daemon.end()
    assert "disk.no_room_for_model" in codes(events, "model")
    assert events[-1].summary.blocked
    assert error_of(refused).code == "disk.no_room_for_model"
    assert not list((tmp_path / "hf").rglob("*.safetensors"))


def test_a_question_to_another_job_waits_for_the_end_of_the_training(
    daemon: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    first = daemon.submit(spec_of(tiny, tmp_path / "one")).job
    daemon.wait_for_state(first.id, JobState.SUCCEEDED)
    second = daemon.submit(spec_of(tiny, tmp_path / "two", num_epochs=500)).job
    wait_for(lambda: daemon.job(second.id).step > 1, 60, "the second job trains")
    heard: list[answers_pb2.AskEvent] = []
    waits = threading.Event()

    def ask() -> None:
        message = answers_pb2.Message(role="user", content="Em que cidade joga o clube?")
        request = answers_pb2.AskRequest(
            messages=[message], max_tokens=3, job_id=first.id, wait=True
        )
        for event in daemon.answers.Ask(request, timeout=90):
            heard.append(event)
            waits.set()

    asker = threading.Thread(target=ask)
    asker.start()
    assert waits.wait(20)
    assert [event.waiting for event in heard] == ["queue"]
    daemon.jobs.Cancel(jobs_pb2.JobRequest(id=second.id))
    asker.join(60)
    (source,) = (event.source for event in heard if event.HasField("source"))
    assert (source.job_id, source.training) == (first.id, False)
    assert heard[-1].HasField("done")


def test_a_model_of_the_hub_can_be_added(home: Path, tiny: Path, tmp_path: Path) -> None:
    with hub.serving(tiny / "model") as environment:
        daemon = DaemonProcess(home, env={**environment, "HF_HOME": str(tmp_path / "hf")})
        try:
            daemon.start()
            request = models_pb2.AddModelRequest(name=hub.REPOSITORY)
            *progress, last = daemon.models.Add(request, timeout=60)
            assert progress and Path(last.model.path, "config.json").is_file()
        finally:
            daemon.end()

"""`submit --host any`: the host where a training would end soonest, by each one's own forecast."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safetrain import cli
from safetrain.connection import Daemon
from safetrain.remote.any_host import queue_seconds, soonest
from safetrain.remote.job_spec import for_host
from safetrain.views.forecasts import Forecast, choice_line, forecast_line
from safetrain_proto.v1.jobs_pb2 import Job, JobState, SubmitRequest
from safetrain_shared.errors import Blocked
from safetrain_shared.jobs import JobSpec
from safetrain_shared.remote import host_list
from safetrain_shared.remote.host_list import Host
from safetrain_shared.wire import spec_to_wire
from safetraind.storage.manifest import write_manifest
from tests.harness import DaemonProcess, wait_for
from tests.remote.studio import Studio, command
from tests.tiny import make_chat_data, make_tiny_model

_SETTINGS = {"batch_size": 2, "max_seq_length": 64, "lora_layers": 1}


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ([Forecast("a", 0, 900), Forecast("b", 300, 600)], "b"),
        ([Forecast("a", 0), Forecast("b", 300, 600)], "b"),
        ([Forecast("a", 60), Forecast("b", 0), Forecast("c")], "b"),
        ([Forecast("a", 0, 60, "no room"), Forecast("b")], "b"),
        ([Forecast("a", 0, 60), Forecast("b", 0, 60)], "a"),
    ],
)
def test_the_earliest_end_is_taken_and_then_the_earliest_start(
    found: list[Forecast], chosen: str
) -> None:
    assert soonest(found).host == chosen


def test_where_none_would_train_it_the_first_reason_is_told() -> None:
    with pytest.raises(Blocked, match="too little memory"):
        soonest([Forecast("", refusal="too little memory"), Forecast("a", refusal="out of reach")])


def test_a_queue_lasts_until_its_last_job_ends_and_no_paused_one_is_waited_for() -> None:
    running = Job(state=JobState.JOB_STATE_RUNNING, eta_seconds=60)
    waiting = Job(state=JobState.JOB_STATE_QUEUED, eta_seconds=200)
    paused, ended = Job(state=JobState.JOB_STATE_PAUSED), Job(state=JobState.JOB_STATE_SUCCEEDED)
    assert queue_seconds([ended, paused]) == 0
    assert queue_seconds([running, waiting, paused, ended]) == 200
    assert queue_seconds([running, Job(state=JobState.JOB_STATE_QUEUED)]) is None


def test_the_choice_is_explained() -> None:
    lines = [
        forecast_line(Forecast("", 0, 120)),
        forecast_line(Forecast("mini", 600)),
        forecast_line(Forecast("away", refusal="away cannot be reached.")),
        choice_line(Forecast("", 0, 120)),
        choice_line(Forecast("mini", 600)),
        choice_line(Forecast("mini")),
    ]
    assert lines == [
        "this machine: starts at once, ends in 2 min",
        "mini: starts in 10 min; how long it takes is not known",
        "away: away cannot be reached.",
        "Taken: this machine, where it would end soonest.",
        "Taken: mini, where it would start soonest; no machine knows how long it takes.",
        "Taken: mini. No machine knows when it would start.",
    ]


def test_any_is_for_submit_alone(studio: Studio, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["jobs", "--host", "any"]) == 65
    assert "for safetrain submit alone" in capsys.readouterr().err
    assert cli.main(["hosts", "add", "any", "studio"]) == 65


@pytest.mark.slow
def test_the_host_that_is_free_is_taken_before_the_one_that_trains(
    studio: Studio,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mini = tmp_path / "mini"
    mini.mkdir()
    host_list.add(Host("mini", "studio", command(mini)))
    host_list.add(Host("away", "nowhere.invalid"))
    for folder in (studio.home, mini / "home"):
        write_manifest(make_tiny_model(folder / "models" / "demo", layers=1), {"name": "demo"})
    train, valid = make_chat_data(tmp_path / "data", 8, 2)
    try:
        with Daemon(host="mini"), Daemon(host="studio") as busy:
            settings = {**_SETTINGS, "num_epochs": 5000}
            out = str(tmp_path / "out")
            spec = JobSpec("demo", str(train), str(valid), out, settings=settings)
            request = SubmitRequest(spec=for_host(busy, spec_to_wire(spec), lambda _: None))
            job = busy.call(busy.jobs.Submit, request, seconds=120).job
            wait_for(lambda: studio.daemon().job(job.id).HasField("eta_seconds"), 120, "its ETA")
        monkeypatch.chdir(tmp_path)
        data = ("--train", str(train), "--valid", str(valid), "--output", "small")
        pairs = [word for pair in _SETTINGS.items() for word in ("--set", "{}={}".format(*pair))]
        asked = ("submit", "--host", "any", "--no-autostart", "--model", "demo", *data, *pairs)
        assert cli.main([*asked, "--json"]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out.splitlines()[-1])["host"] == "mini"
        assert "Taken: mini, where it would end soonest." in said.err
        for name in ("this machine: ", "studio: starts in ", "mini: starts at once", "away: away "):
            assert name in said.err
    finally:
        DaemonProcess(mini / "home").end()
        host_list.remove("away")
        host_list.remove("mini")

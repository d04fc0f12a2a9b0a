"""`--quiet`: results and errors, and nothing else."""

from __future__ import annotations

import json

import pytest

from safetrain import autostart
from safetrain.cli import main
from safetrain_proto.v1 import answers_pb2
from safetrain_proto.v1.jobs_pb2 import SubmitResponse
from safetrain_shared import wire
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import Home
from tests.client.builders import complete_run, job
from tests.client.fake import FakeDaemon

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def ended(daemon: FakeDaemon) -> FakeDaemon:
    warning = Finding("data.blank_line", Status.WARNING, args={"path": "/a", "line": 3})
    daemon.jobs, daemon.events = [job(7, JobState.CANCELLED)], complete_run()
    daemon.submitted = SubmitResponse(job=job(7), findings=[wire.finding_to_wire(warning)])
    daemon.ended.set()
    return daemon


def test_an_answer_stands_alone(ended: FakeDaemon, capsys: Capture) -> None:
    ended.answer = [
        answers_pb2.AskEvent(source=answers_pb2.AnswerSource(model="demo")),
        answers_pb2.AskEvent(text="Sim."),
        answers_pb2.AskEvent(done=answers_pb2.AnswerDone(tokens=2)),
    ]
    assert main(["ask", "Qual?", "--quiet"]) == 0
    assert capsys.readouterr() == ("Sim.\n", "")


@pytest.mark.parametrize("arguments", [["submit", "--wait", "--quiet"], ["--quiet", "submit"]])
def test_submit_prints_the_job_and_no_notes(
    arguments: list[str], ended: FakeDaemon, capsys: Capture
) -> None:
    assert main(arguments) == (5 if "--wait" in arguments else 0)
    assert capsys.readouterr() == ("Job 7 is queued.\n", "")


def test_watch_says_nothing_and_exits_as_the_job_ended(ended: FakeDaemon, capsys: Capture) -> None:
    assert main(["watch", "--quiet"]) == 5
    assert capsys.readouterr() == ("", "")


def test_what_is_asked_for_as_json_is_a_result(ended: FakeDaemon, capsys: Capture) -> None:
    assert main(["watch", "--quiet", "--json"]) == 5
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()]


def test_status_is_one_line(ended: FakeDaemon, capsys: Capture) -> None:
    assert main(["status", "--quiet"]) == 0
    assert capsys.readouterr() == ("Job 7 · cancelled\n", "")


def test_errors_stay(ended: FakeDaemon, capsys: Capture) -> None:
    assert main(["status", "9", "--quiet"]) == 66
    assert "no job 9" in capsys.readouterr().err


def test_that_the_service_is_started_is_not_said(
    home: Home, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeDaemon(home)
    monkeypatch.setattr(autostart, "start", lambda home: fake.start())
    assert main(["jobs", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    fake.stop()

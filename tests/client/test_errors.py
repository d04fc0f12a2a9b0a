"""What goes wrong at the terminal: a sentence, or with --json one object, and never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from safetrain.cli import main
from safetrain_proto.v1.jobs_pb2 import ListJobsRequest
from safetrain_shared.paths import Home
from tests.client.builders import job
from tests.client.fake import FakeDaemon

Capture = pytest.CaptureFixture[str]
TOO_LARGE = str(2**63)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["status", "--json", "--colour"], "No such option '--colour'."),
        (["--json", "teach"], "No such command 'teach'."),
        (["--json", "pause", "two"], "Invalid value for 'JOB': 'two' is not a valid whole number."),
        (["--json"], "Missing command."),
    ],
)
def test_wrong_usage_is_one_object_with_json(
    arguments: list[str], text: str, capsys: Capture
) -> None:
    assert main(["--lang", "en", *arguments]) == 2
    said = capsys.readouterr()
    error = {"code": "usage", "args": {}, "text": text}
    assert json.loads(said.err) == {"error": error, "exit_code": 2}
    assert said.out == ""


def test_wrong_usage_of_the_service_is_one_object_too() -> None:
    command = [sys.executable, "-m", "safetraind", "--lang", "en", "status", "--json", "--colour"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == json.loads(done.stderr)["exit_code"] == 2


def test_a_defect_is_one_object_with_json(
    home: Home, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safetrain.autostart.answers", lambda home: 1 / 0)
    assert main(["jobs", "--json"]) == 70
    said = json.loads(capsys.readouterr().err)
    assert said["error"]["code"] == "client.broken" and said["exit_code"] == 70
    assert said["error"]["args"]["reason"].startswith("ZeroDivisionError")


@pytest.mark.parametrize(
    "arguments",
    [
        *([verb, TOO_LARGE] for verb in ("status", "watch", "pause", "resume", "cancel")),
        *([verb, TOO_LARGE] for verb in ("retry", "move", "remove", "plot", "report", "diagnose")),
        ["export", TOO_LARGE, "--output", "o"],
        ["watch", "--after", TOO_LARGE],
        ["watch", "--after", "-1"],
        ["submit", "--after", TOO_LARGE],
        ["submit", "--after", "-1"],
        ["ask", "Qual?", "--job", TOO_LARGE],
        ["ask", "Qual?", "--seed", TOO_LARGE],
        ["ask", "Qual?", "--max-tokens", TOO_LARGE],
        ["pause", "0"],
    ],
)
def test_a_number_that_cannot_be_meant_is_wrong_usage(
    arguments: list[str], daemon: FakeDaemon, capsys: Capture
) -> None:
    daemon.jobs = [job(1)]
    assert main(["--lang", "en", *arguments]) == 2
    assert "is not in the range" in capsys.readouterr().err
    assert not [r for r in daemon.requests if not isinstance(r, ListJobsRequest)]


@pytest.mark.parametrize(
    "setting", [f"seed={TOO_LARGE}", f"num_epochs={TOO_LARGE}", "learning_rate=1e999"]
)
def test_a_setting_that_cannot_be_meant_is_refused(setting: str, daemon: FakeDaemon) -> None:
    assert main(["submit", "--set", setting]) == 78
    assert daemon.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "--name", "\udcff"],
        ["submit", "--train", "\udcff.jsonl", "--valid", "b.jsonl"],
        ["submit", "--set", "lora_targets=\udcff"],
        ["ask", "\udcff?"],
        ["validate", "\udcff.jsonl"],
        ["models", "add", "\udcff"],
    ],
)
def test_an_argument_that_is_not_utf8_is_named(
    arguments: list[str], daemon: FakeDaemon, capsys: Capture
) -> None:
    assert main([*arguments, "--lang", "en"]) == 65
    said = capsys.readouterr().err
    assert "\\udcff" in said or "/?.jsonl" in said
    assert "UTF-8" in said and said.count("\n") == 1


@pytest.mark.parametrize("arguments", [["submit", "--model", "demo"], ["validate", "a.jsonl"]])
def test_a_current_folder_that_is_gone_is_a_sentence(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("SAFETRAIN_HOME", str(tmp_path / "home"))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main([*arguments, "--no-autostart"]) == 66
    assert capsys.readouterr().err.startswith("safetrain: The current folder was deleted.")

"""The whole job on another machine, over a real sshd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from safetrain import cli
from safetrain.connection import Daemon
from safetrain_proto.v1.data_pb2 import ValidateRequest
from tests.harness import DaemonProcess, kill_all
from tests.remote.studio import Studio
from tests.tiny import make_chat_data, make_tiny_model

SETTINGS = {"num_epochs": 1, "batch_size": 2, "max_seq_length": 64, "lora_layers": 1}


def run(*words: str) -> int:
    return cli.main(list(words))


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_whole_job_from_data_here_to_an_adapter_here(
    studio: Studio,
    daemon: DaemonProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = str(make_tiny_model(tmp_path / "tiny", layers=1))
    train, valid = make_chat_data(tmp_path / "data", 8, 2)
    monkeypatch.chdir(tmp_path)
    pairs = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    files = ("--train", str(train), "--valid", str(valid), "--output", f"out-{tmp_path.name}")

    assert run("hosts", "check", "studio") == 0
    capsys.readouterr()
    submit = ("submit", "--host", "studio", "--model", model, *files, *pairs, "--wait", "--json")
    assert run(*submit) == 0, capsys.readouterr()
    jobs = _jobs(capsys)
    assert [job["state"] for job in jobs] == ["succeeded"]
    trained = Path(jobs[0]["spec"]["model"])
    assert trained.name == "tiny" and trained.is_relative_to(studio.home / "uploads")
    there = Path(jobs[0]["spec"]["output"])
    assert there.is_dir() and there.parent == studio.home.parent / "safetrain"

    assert run("fetch", "1", "--host", "studio", "--output", "here", "--json") == 0
    adapter = tmp_path / "here/adapters/adapters.safetensors"
    assert str(adapter) in printed(capsys)["changed"]
    assert adapter.read_bytes() == (there / "adapters/adapters.safetensors").read_bytes()
    assert run("fetch", "1", "--host", "studio", "--output", "here", "--json") == 0
    assert printed(capsys)["changed"] == []

    assert run("hosts", "add", "away", "nowhere.invalid") == 0
    capsys.readouterr()
    assert run("jobs", "--all-hosts", "--json") == 69  # of the one that is out of reach
    everywhere = printed(capsys)
    assert [(one["host"], len(one["jobs"])) for one in everywhere] == [("", 0), ("studio", 1)]
    assert run("hosts", "remove", "away") == 0

    assert run("ask", "Quem joga?", "--host", "studio", "--max-tokens", "3") == 0
    assert capsys.readouterr().out.strip()
    assert run("remove", "1", "--files", "--host", "studio") == 0
    assert not there.exists()


def _jobs(capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert run("jobs", "--host", "studio", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    return found["jobs"] if isinstance(found, dict) else found


@pytest.mark.parametrize(
    ("host", "code", "words"),
    [("nowhere.invalid", 69, "cannot be reached by ssh"), ("-oProxyCommand=x", 65, "destination")],
)
def test_a_host_that_is_none_is_a_sentence(
    studio: Studio, host: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("jobs", f"--host={host}") == code
    assert words in capsys.readouterr().err


def test_a_command_that_is_not_there_is_named_with_the_cure(
    studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("hosts", "add", "bare", "studio", "--command", "/no/safetraind") == 0
    assert run("jobs", "--host", "bare") == 69
    assert "pipx install --force 'safetrain[daemon]==" in capsys.readouterr().err
    assert run("hosts", "remove", "bare") == 0


def test_a_file_of_this_machine_is_checked_there_and_named_as_here(
    studio: Studio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text('{"text": "olá"}\n{}\n')
    assert run("validate", str(file), "--host", "studio") == 1
    said = capsys.readouterr().out
    assert f"{file}:2" in said and "uploads" not in said
    assert run("validate", str(file), "--host", "studio", "--json") == 1
    said = capsys.readouterr().out
    assert str(file) in said and "uploads" not in said


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("prepare", "a.csv", "--output", "dados"), "Run it without --host"),
        (("diagnose", "--bundle", "report.zip"), "Run it there: ssh studio"),
        (("diagnose", "--selftest"), "Run it there: ssh studio"),
        (("ask", "olá", "--model", "."), "no files that could be sent"),
    ],
)
def test_what_cannot_work_there_is_one_sentence(
    studio: Studio,
    tmp_path: Path,
    command: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*command, "--host", "studio") == 65
    assert words in capsys.readouterr().err


def test_a_daemon_that_ended_behind_a_kept_connection_is_started_again(studio: Studio) -> None:
    with Daemon(host="studio"):
        pass
    ended = studio.daemon().processes()
    kill_all(ended)
    psutil.wait_procs(ended, 20)
    with Daemon(host="studio") as daemon:  # a call that is not repeated where it may have left
        assert list(daemon.stream(daemon.data.Validate, ValidateRequest())) == []

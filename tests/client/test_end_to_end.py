"""The whole way with real parts: the command starts a real daemon, which trains a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import safetrain
from safetrain_shared.paths import Home
from tests.harness import DaemonProcess, wait_for
from tests.tiny import make_chat_data, make_tiny_model

QUICK = [
    "batch_size=2",
    "gradient_accumulation=1",
    "log_steps=1",
    "eval_steps=10",
    "save_steps=10",
    "max_seq_length=96",
]


@pytest.fixture
def machine(home: Home) -> Iterator[DaemonProcess]:
    """An empty home with a tiny model and data in the current folder; nothing runs yet."""
    make_tiny_model(Path("model"), layers=2)
    make_chat_data(Path("data"), 24, 6)
    process = DaemonProcess(home.root)
    try:
        yield process
    finally:
        process.end()


def _submit(epochs: int) -> list[str]:
    data = ["--train", "data/train.jsonl", "--valid", "data/valid.jsonl"]
    settings = [part for pair in [*QUICK, f"num_epochs={epochs}"] for part in ("--set", pair)]
    return ["submit", "--model", "./model", "--output", "out", *data, *settings]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "safetrain", *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.mark.compiled
def test_from_an_empty_home_to_an_answer(machine: DaemonProcess) -> None:
    done = _run(*_submit(2), "--watch")
    assert done.returncode == 0, done.stderr + machine.said()
    assert done.stderr.startswith("Starting safetraind …\n")
    assert done.stdout.startswith("Job 1 is queued.\n")
    assert "step 24 of 24" in done.stdout and "the best so far" in done.stdout
    assert Path("out/adapters/adapters.safetensors").is_file()
    assert "Job 1 · succeeded" in _run("status").stdout
    again = _run(*_submit(2))
    assert again.returncode == 3 and "--fresh" in again.stderr
    asked = _run("ask", "Em que cidade joga o clube?", "--max-tokens", "8", "--json")
    assert asked.returncode == 0, asked.stderr + machine.said()
    answer = json.loads(asked.stdout)
    assert answer["tokens"] == 8 and answer["source"]["job_id"] == 1
    with safetrain.connect(autostart=False) as client:
        table = client.job(1).metrics()
        assert table.column("step") == list(range(25)) and table[-1]["valid_loss"] > 0
        assert client.ask("Em que cidade joga o clube?", max_tokens=8).text == answer["answer"]


def test_clients_that_start_a_daemon_at_once_share_one(machine: DaemonProcess) -> None:
    command = [sys.executable, "-m", "safetrain", "jobs"]
    clients = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [client.wait(60) for client in clients] == [0, 0, 0, 0], machine.said()
    assert len(machine.processes()) == 1


def test_a_watcher_outlives_its_daemon_and_misses_nothing(machine: DaemonProcess) -> None:
    assert _run(*_submit(10)).returncode == 0
    command = [sys.executable, "-m", "safetrain", "watch", "--json"]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watcher.stdout is not None and watcher.stderr is not None
    pid, seen = machine.info().pid, []
    while not seen or seen[-1]["kind"] != "step":
        seen.append(json.loads(watcher.stdout.readline()))
    os.kill(pid, 9)
    seen += [json.loads(line) for line in watcher.stdout]
    assert watcher.wait(60) == 0, machine.said()
    assert watcher.stderr.read() == "Starting safetraind …\n"
    assert [event["seq"] for event in seen] == list(range(1, len(seen) + 1))
    assert seen == [json.loads(line) for line in _run("watch", "1", "--json").stdout.splitlines()]
    assert [event["step"] for event in seen if event["kind"] == "step"] == list(range(1, 121))


def test_pause_resume_and_cancel_reach_the_training(machine: DaemonProcess) -> None:
    assert _run(*_submit(500)).returncode == 0
    wait_for(lambda: json.loads(_run("status", "--json").stdout)["step"] > 0, 60)
    assert "Job 1" in _run("pause", "1").stdout
    wait_for(lambda: json.loads(_run("status", "--json").stdout)["state"] == "paused", 60)
    assert _run("pause", "1").returncode == 0  # nothing left to do, no harm done
    step = json.loads(_run("status", "--json").stdout)["step"]
    assert _run("resume", "1").returncode == 0
    wait_for(lambda: json.loads(_run("status", "--json").stdout)["step"] > step, 60)
    assert _run("cancel", "1").returncode == 0
    assert _run("watch", "1").returncode == 5
    assert _run("remove", "1", "--files").returncode == 0
    assert not Path("out/adapters").exists()

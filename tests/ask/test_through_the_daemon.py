"""ask and chat from the terminal to the worker and back, with a real daemon."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

from safetrain_proto.v1 import answers_pb2
from safetrain_shared.jobs import JobSpec, JobState
from tests.ask.helpers import QUESTION
from tests.harness import DaemonProcess, wait_for
from tests.tiny import make_chat_data

LONG = 3000  # tokens: longer than any test


def ask(daemon: DaemonProcess, **fields: Any) -> list[answers_pb2.AskEvent]:
    return list(daemon.answers.Ask(request(**fields), timeout=60))


def request(max_tokens: int = 3, **fields: Any) -> answers_pb2.AskRequest:
    message = answers_pb2.Message(role="user", content=QUESTION)
    return answers_pb2.AskRequest(messages=[message], max_tokens=max_tokens, **fields)


def safetrain(daemon: DaemonProcess, *words: str, said: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "safetrain", *words],
        env=daemon.environment(),
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_model_stays_as_long_as_the_last_question_asked_and_comes_back(
    daemon: DaemonProcess, tiny_model: Path
) -> None:
    model = str(tiny_model)
    assert ask(daemon, model=model, keep_alive_seconds=120)[-1].HasField("done")
    (worker,) = daemon.workers()
    assert ask(daemon, model=model, keep_alive_seconds=0)[-1].HasField("done")
    for _ in range(3):  # whoever meets the one that is leaving gets another
        assert ask(daemon, model=model, keep_alive_seconds=0)[-1].HasField("done")
    wait_for(lambda: not daemon.workers(), what="the idle worker leaves")
    assert not psutil.pid_exists(worker.pid)
    assert not daemon.home.run("serve").socket.exists()


def test_an_answer_in_progress_gives_way_to_the_next_job(
    daemon: DaemonProcess, tiny_model: Path, tmp_path: Path
) -> None:
    train, valid = make_chat_data(tmp_path / "data", train=8, valid=2)
    heard: list[answers_pb2.AskEvent] = []
    begun = threading.Event()

    def listen() -> None:
        call = request(LONG, model=str(tiny_model), keep_alive_seconds=3600)
        for event in daemon.answers.Ask(call, timeout=120):
            heard.append(event)
            if event.HasField("text"):
                begun.set()

    asker = threading.Thread(target=listen)
    asker.start()
    assert begun.wait(30)
    settings = {"num_epochs": 1, "lora_layers": 1, "max_seq_length": 64, "seed": 1}
    spec = JobSpec(str(tiny_model), str(train), str(valid), str(tmp_path / "o"), settings=settings)
    job = daemon.submit(spec).job
    asker.join(60)
    assert heard[-1].done.cut
    assert heard[-1].done.tokens < LONG
    daemon.wait_for_state(job.id, JobState.SUCCEEDED, seconds=60)

    footer = safetrain(daemon, "ask", QUESTION, "--max-tokens", "3", "--keep-alive", "0").stderr
    assert footer.startswith(f"[{tiny_model}")
    assert f"job {job.id}]" in footer


def test_a_chat_puts_answers_alone_on_standard_output(
    daemon: DaemonProcess, tiny_model: Path
) -> None:
    options = ("--model", str(tiny_model), "--max-tokens", "4", "--keep-alive", "60")
    chat = safetrain(
        daemon, "chat", *options, said=f"{QUESTION}\n/help\nE as cores?\n/limpar\nE?\n"
    )
    assert chat.returncode == 0, chat.stderr
    alone = safetrain(daemon, "ask", QUESTION, *options)
    assert chat.stdout.startswith(alone.stdout)
    assert "[" + str(tiny_model) in chat.stderr
    assert "[4 tokens" in chat.stderr and "[4 tokens" not in chat.stdout
    assert "/reset (or /limpar)" in chat.stderr and "is forgotten" in chat.stderr

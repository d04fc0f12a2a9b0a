"""The serving worker as a real process: warm, switchable, silent, and gone when idle."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from safetrain_shared.paths import RunFolder
from safetraind.storage.manifest import sha256
from tests.ask.helpers import QUESTION, ask, make_adapter, only, text_of, user, wait_until
from tests.tiny import make_tiny_model

SECRET = "uma pergunta que ninguém mais deve ler"


class Worker:
    """A `serve` worker in its run folder."""

    def __init__(self, folder, **request):
        self.run = RunFolder(folder)
        (folder / "serve_request.json").write_text(json.dumps(request))
        with self.run.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "safetraind.worker", "serve", str(folder)],
                stdout=log,
                stderr=log,
            )
        wait_until(self.run.socket.exists)

    def ask(self, **question):
        return ask(self.run.socket, **question).result(60)


@pytest.fixture
def serve(tmp_path):
    started = []

    def start(**request):
        started.append(Worker(tmp_path, **request))
        return started[-1]

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.wait()


def test_the_model_stays_warm_and_adapters_and_models_change_by_question(
    serve, tiny_model, adapters, tmp_path_factory
):
    worker = serve(model=str(tiny_model), adapter=str(adapters["lora"]), dequantize=False)
    first = worker.ask()
    assert {"waiting": "loading"} in first
    assert only(first, "source") == {
        "model": str(tiny_model),
        "adapter": str(adapters["lora"]),
        "step": 0,
        "training": False,
        "adapter_sha256": sha256(adapters["lora"] / "adapters.safetensors"),
    }
    again = worker.ask()
    assert {"waiting": "loading"} not in again
    assert text_of(again) == text_of(first)
    base = worker.ask(base=True)
    assert only(base, "source")["adapter"] == ""
    other = worker.ask(adapter=str(adapters["dora"]))
    assert len({text_of(first), text_of(base), text_of(other)}) == 3
    assert text_of(worker.ask()) == text_of(first)
    assert text_of(worker.ask(base=True)) == text_of(base)
    model = make_tiny_model(tmp_path_factory.mktemp("other") / "m", layers=1, seed=5)
    elsewhere = worker.ask(model=str(model), base=True)
    assert {"waiting": "loading"} in elsewhere
    assert text_of(elsewhere) != text_of(base)


def test_an_adapter_that_was_replaced_is_loaded_again(serve, tiny_model, adapters, tmp_path):
    folder = shutil.copytree(adapters["lora"], tmp_path / "adapter")
    worker = serve(model=str(tiny_model), adapter=str(folder), dequantize=False)
    first = worker.ask()
    new = make_adapter(tiny_model, tmp_path / "new", "lora", seed=2) / "adapters.safetensors"
    digest = sha256(new)
    new.replace(folder / "adapters.safetensors")
    second = worker.ask()
    assert only(second, "source")["adapter_sha256"] == digest
    assert text_of(second) != text_of(first)
    (folder / "adapters.safetensors").unlink()
    assert only(worker.ask(), "error")["code"] == "adapter.unusable"


def test_what_does_not_load_is_said_and_the_worker_goes_on(serve, tiny_model, tmp_path):
    worker = serve(model=str(tiny_model))
    missing = only(worker.ask(model=str(tmp_path / "nowhere")), "error")
    assert missing["code"] == "path.missing"
    assert only(worker.ask(adapter=str(tmp_path)), "error")["code"] == "adapter.missing"
    assert text_of(worker.ask())


def test_an_idle_worker_unloads_itself(serve, tiny_model):
    worker = serve(model=str(tiny_model), keep_alive=0.5)
    assert text_of(worker.ask())
    assert worker.process.wait(60) == 0
    assert not worker.run.socket.exists()


def test_the_worker_answers_no_longer_than_the_model_takes(serve, tiny_model):
    worker = serve(model=str(tiny_model), context=1_000_000)
    error = only(worker.ask(messages=user("Farense " * 2048)), "error")
    assert (error["code"], error["args"]["limit"]) == ("ask.prompt_too_long", 1023)


def test_a_worker_that_is_asked_to_end_does_so_in_mid_answer(serve, tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "endless")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1 << 20}))
    worker = serve(model=str(model), context=1_000_000)
    with Open(worker, max_tokens=900_000) as first:
        first.read_until("waiting")
        second = Open(worker)
        second.read_until("waiting")
        first.read_until("text")
        worker.process.send_signal(signal.SIGTERM)
        assert first.read_until("done")["done"]["cut"]
        with second:
            assert second.read_until("error")["error"]["code"] == "ask.worker_ended"
    assert worker.process.wait(60) == 0
    assert not worker.run.socket.exists()


class Open:
    """A question whose replies are read one by one."""

    def __init__(self, worker, **question):
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(30)
        self.connection.connect(str(worker.run.socket))
        line = json.dumps({"messages": user(), **question})
        self.connection.sendall(line.encode() + b"\n")
        self.replies = self.connection.makefile("r", encoding="utf-8")

    def read_until(self, kind):
        return next(reply for line in self.replies if kind in (reply := json.loads(line)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.replies.close()
        self.connection.close()


def test_neither_questions_nor_answers_reach_the_log(serve, tiny_model):
    worker = serve(model=str(tiny_model), context=2000)
    answer = text_of(worker.ask(messages=user(SECRET), max_tokens=30))
    worker.ask(messages=[{"role": "assistant", "content": SECRET}])
    worker.ask(messages=user(SECRET), adapter="/nowhere")
    worker.ask(messages=user(SECRET * 200))
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(60)
    log = worker.run.log.read_text(encoding="utf-8", errors="replace")
    assert SECRET not in log
    assert answer.strip() and answer not in log
    written = [f.read_text(errors="replace") for f in worker.run.root.iterdir() if f.is_file()]
    assert not any(SECRET in text for text in written)
    assert QUESTION not in log

"""Every command that names files or serves, on another machine, once a job has trained there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import safetrain
from safetrain import cli
from safetrain_shared.errors import InvalidInput
from safetrain_shared.paths import PLOTS, REPORT
from safetraind.storage.manifest import write_manifest
from tests.dashboard.conftest import Served
from tests.harness import wait_for
from tests.remote.studio import Studio
from tests.tiny import make_chat_data, make_tiny_model

pytestmark = pytest.mark.slow
_SETTINGS = ("num_epochs=1", "batch_size=2", "max_seq_length=64", "lora_layers=1")


@pytest.fixture(scope="module")
def trained(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the data of job 1, which has trained on the host."""
    folder = tmp_path_factory.mktemp("trained")
    write_manifest(make_tiny_model(studio.home / "models" / "demo", layers=1), {"name": "demo"})
    make_chat_data(folder, 8, 4)
    pairs = [word for pair in _SETTINGS for word in ("--set", pair)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = (
            "--model",
            "demo",
            "--train",
            "train.jsonl",
            "--valid",
            "valid.jsonl",
            "--output",
            "out",
        )
        assert cli.main(["submit", "--host", "studio", *data, *pairs, "--wait"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _there(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)


def run(*words: str) -> int:
    return cli.main([*words, "--host", "studio"])


def test_preview_evaluate_suggest_and_report(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("preview", "train.jsonl", "--model", "demo") == 0
    assert "uploads" not in capsys.readouterr().out
    question = {"question": "Quem joga?", "answer": "O Farense.", "match": "contains"}
    (trained / "questions.jsonl").write_text(json.dumps(question) + "\n")
    asked = ("evaluate", "1", "--questions", "questions.jsonl", "--max-tokens", "3", "--json")
    assert run(*asked) in (0, 1, 6)
    assert json.loads(capsys.readouterr().out)["questions"] == str(trained / "questions.jsonl")
    assert run("models", "suggest", "--train", "train.jsonl", "--json") == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 8
    assert run("report", "1") == 0
    page = (trained / "job-1" / PLOTS / REPORT).read_text()
    assert "studio" in page and "–" in page


def test_a_program_does_the_same(trained: Path) -> None:
    (trained / "wrong.jsonl").write_text("{}\n")
    with safetrain.connect(host="studio") as client:
        found = list(client.validate("wrong.jsonl"))
        assert [one.args["path"] for one in found] == [str(trained / "wrong.jsonl")]
        assert client.ask("Quem joga?", job=1, max_tokens=3).text
        with pytest.raises(InvalidInput, match="Run it without --host"):
            client.prepare("wrong.jsonl", output="dados")


def test_an_export_stays_there_and_says_how_to_bring_it(
    studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "1", "--output", "fused") == 0
    there = studio.home.parent / "safetrain" / "fused"
    assert (there / "model.safetensors").is_file()
    assert f"scp -r studio:{there} ." in capsys.readouterr().out


@contextmanager
def _serving(*words: str) -> Iterator[dict[str, Any]]:
    """What a command that serves prints as JSON; the command ends with the block."""
    command = [sys.executable, "-m", "safetrain", *words, "--host", "studio", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate()


def test_a_served_model_answers_again_after_the_link_broke(studio: Studio) -> None:
    def answered() -> str:
        body = {
            "model": at["model"],
            "messages": [{"role": "user", "content": "Quem joga?"}],
            "max_tokens": 3,
        }
        headers = {"Authorization": f"Bearer {at['token']}", "Content-Type": "application/json"}
        url = f"{at['base_url']}/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return str(json.load(answer)["choices"][0]["message"]["content"])
        except urllib.error.HTTPError as error:
            assert error.code >= 500, error.read()
            return ""

    with _serving("serve", "1", "--port", "0") as at:
        first = answered()
        assert first and studio.cut()
        assert wait_for(answered, 60, "it answers again") == first


def test_the_page_brings_the_results_here_and_exports_there(studio: Studio, tmp_path: Path) -> None:
    page = Served("--host", "studio", user=tmp_path)
    try:
        wait_for(lambda: "Bring the results here" in page.get("/jobs/1", Cookie=page.cookie())[2])
        fetched = page.post("/jobs/1/fetch", page="/jobs/1")[2]
        assert "The results are in ~/safetrain/studio-job-1." in fetched, fetched
        here = tmp_path / "safetrain" / "studio-job-1"
        assert [path.name for path in here.rglob("adapters.safetensors")]
        form = page.get("/jobs/1/export-form", Cookie=page.cookie())[2]
        folder = re.findall(r'name="output" value="([^"]+)"', form)[0]
        exported = page.post("/jobs/1/export", urlencode({"output": folder}), "/jobs/1/export-form")
        assert f"scp -r studio:{folder} ." in exported[2], exported[2]
        assert (Path(folder) / "model.safetensors").is_file()
        assert Path(folder).parent == studio.home.parent / "safetrain"
    finally:
        page.end()

"""The report for an issue: what must not be in it, and that what is needed is."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from safetrain.bundle.collect import files
from safetrain.bundle.scrub import LEFT_OUT, SECRET, Scrubber, without_quotes
from safetrain_shared import i18n
from safetrain_shared.jobs import JobSpec
from safetrain_shared.paths import Home
from tests.harness import DaemonProcess
from tests.tiny import make_chat_data, make_tiny_model

TOKEN = "hf_QwErTyUiOpAsDfGhJkLz"
PASSWORD = "correct-horse-battery"


def content(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as bundle:
        return {name: bundle.read(name).decode() for name in bundle.namelist()}


def run(daemon: DaemonProcess, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "safetrain", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**daemon.environment(), **env},
    )


def test_the_reports_own_guide_is_in_the_users_language(tmp_path: Path) -> None:
    with i18n.using("pt"):
        named = dict(files(Home(tmp_path), {}, Scrubber()))
    assert named["README.txt"].startswith("Um relatório de `safetrain diagnose --bundle`")
    assert "Ficaram de fora: perguntas" in named["README.txt"]


@pytest.fixture
def person(tmp_path: Path) -> Path:
    """The home folder of somebody whose name must not be told."""
    folder = tmp_path / "home" / "joaquina"
    folder.mkdir(parents=True)
    return folder


def test_no_secret_no_name_and_no_data_gets_into_the_report(person: Path) -> None:
    model = make_tiny_model(person / "model", layers=2)
    train, valid = make_chat_data(person / "segredo" / "data", train=12, valid=4)
    env = {
        "HOME": str(person),
        "USER": "joaquina",
        "LOGNAME": "joaquina",
        "HF_TOKEN": TOKEN,
        "MY_PASSWORD": PASSWORD,
        "PWD": str(person),
        "OLDPWD": str(person.parent),
        "HTTPS_PROXY": f"http://joaquina:{PASSWORD}@proxy:3128",
    }
    daemon = DaemonProcess(person / "state", env=env)
    try:
        daemon.start()
        settings = {"num_epochs": 1, "lora_layers": 1, "max_seq_length": 96, "log_steps": 1}
        settings["batch_size"] = 2
        spec = JobSpec(
            str(model), str(train), str(valid), str(person / "out"), "a minha avó", settings
        )
        job = daemon.submit(spec).job.id
        daemon.wait_for_state(job)
        question = "Onde vive a tia Gertrudes?"
        assert run(daemon, "ask", question, "--max-tokens", "4").returncode == 0
        sample = train.read_text().splitlines()[0]
        log = daemon.home.run(job).log
        with log.open("a") as file:
            file.write(f"{sample}\nTraceback (most recent call last):\n")
            file.write(f'  File "{person}/x.py", line 3, in load\n    text = "{sample[:40]}"\n')
            file.write(f"ValueError: {sample}\n{TOKEN}\nRuntimeError: [metal::malloc] too large\n")
        done = run(daemon, "diagnose", "--bundle", str(person / "report.zip"))
        assert done.returncode == 0, done.stderr
        assert "The report is in" in done.stderr
        again = run(daemon, "diagnose", "--bundle", str(person / "report.zip"))
        assert again.returncode == 73 and "is there already" in again.stderr
    finally:
        daemon.end()
    assert (person / "report.zip").stat().st_mode & 0o777 == 0o600
    files = content(person / "report.zip")
    everything = "\n".join(files.values())
    forbidden = [TOKEN, PASSWORD, "joaquina", "Gertrudes", "segredo", "a minha avó"]
    forbidden += [m["content"] for m in json.loads(sample)["messages"]] + ["Pergunta 1"]
    assert [text for text in forbidden if text in everything] == []

    needed = {"diagnosis.json", "environment.json", "daemon.log", "runs/1/plan.json"}
    assert needed <= set(files)
    assert '"kind": "step"' in files["runs/1/events.log"]
    worker = files["runs/1/worker.log"].splitlines()
    end = [
        LEFT_OUT,
        "Traceback (most recent call last):",
        '  File "~/x.py", line 3, in load',
        LEFT_OUT,
        f"ValueError: {LEFT_OUT}",
        LEFT_OUT,
        "RuntimeError: [metal::malloc] too large",
    ]
    assert worker[-len(end) :] == end
    assert json.loads(files["environment.json"])["set"][:2] == ["HF_TOKEN", "HTTPS_PROXY"]
    assert "the service's own words" in files["README.txt"]


def test_a_service_that_does_not_start_leaves_a_report_all_the_same(person: Path) -> None:
    state = person / "state"
    state.mkdir(mode=0o700)
    (state / "jobs.db").write_bytes(b"this is no database" * 100)
    daemon = DaemonProcess(state, env={"HOME": str(person)})
    done = run(daemon, "diagnose", "--bundle", str(person / "report.zip"))
    assert done.returncode != 0
    assert json.loads(content(person / "report.zip")["diagnosis.json"])["error"]["code"]


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("/Users/ana/x and /home/rui/y", "~/x and ~/y"),
        ("/srv/ana/data", "~/data"),
        ("/srv/anabela/data", "/srv/anabela/data"),
        ("Bearer abc.def", f"Bearer {SECRET}"),
        ("https://me:pw@hub/x", f"https://{SECRET}@hub/x"),
        ("key=topsecret!", f"key={SECRET}"),
        ("ana-rita's mac", "[name]'s mac"),
    ],
)
def test_secrets_and_names_are_replaced(text: str, scrubbed: str) -> None:
    scrub = Scrubber({"API_KEY": "topsecret!", "LANG": "pt"}, Path("/srv/ana"), ("ana-rita",))
    assert scrub.text(text) == scrubbed


def test_a_findings_arguments_keep_numbers_and_names_only() -> None:
    finding = {"code": "c", "args": {"line": 3, "path": "~/t", "hint": "a sample"}, "text": "all"}
    kept = {"code": "c", "args": {"line": 3, "path": "~/t", "hint": LEFT_OUT}}
    assert without_quotes({"kind": "notice", "finding": finding})["finding"] == kept

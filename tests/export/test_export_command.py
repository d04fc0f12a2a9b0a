"""`safetrain export` through a real daemon, after a real training."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx_lm
import pytest

import safetrain
from safetrain_shared.errors import InvalidInput
from safetrain_shared.jobs import JobSpec, JobState
from tests.harness import DaemonProcess, wait_for
from tests.tiny import make_chat_data, make_tiny_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DaemonProcess, Path]]:
    """A daemon with one finished job, and the folder it works in."""
    folder = tmp_path_factory.mktemp("trained")
    model = make_tiny_model(folder / "model", layers=2, quantized=True)
    train, valid = make_chat_data(folder / "data")
    daemon = DaemonProcess(folder / "home").start()
    try:
        assert run(daemon, "export", "--output", str(folder / "none")).returncode == 66
        spec = JobSpec(
            model=str(model),
            train=str(train),
            valid=str(valid),
            output=str(folder / "out"),
            settings={"batch_size": 4, "num_epochs": 2, "max_seq_length": 96, "warmup_steps": 0},
        )
        job = daemon.submit(spec).job.id
        assert daemon.wait_for_state(job) is JobState.SUCCEEDED
        yield daemon, folder
    finally:
        daemon.end()


def run(
    daemon: DaemonProcess, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "safetrain", *arguments]
    env = daemon.environment() | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)


def test_the_newest_adapter_becomes_a_model_that_mlx_lm_loads(
    trained: tuple[DaemonProcess, Path],
) -> None:
    daemon, folder = trained
    done = run(daemon, "export", "--output", str(folder / "fused"))
    assert done.returncode == 0, done.stderr
    assert "job 1 and its base in one" in done.stdout
    assert "tokens as with the adapter" in done.stdout
    assert "For Ollama, export with --gguf." in done.stdout
    mlx_lm.load(str(folder / "fused"))
    manifest = json.loads((folder / "fused" / "manifest.json").read_text())
    assert manifest["job"] == 1
    assert manifest["export"]["agreement"]["differing"] == 0


def test_a_checkpoint_as_gguf_with_its_numbers_as_json(
    trained: tuple[DaemonProcess, Path],
) -> None:
    daemon, folder = trained
    name = max(path.name for path in (folder / "out").glob("checkpoint_*"))
    output = str(folder / "gguf")
    done = run(daemon, "export", "1", "--output", output, "--gguf", "--checkpoint", name, "--json")
    assert done.returncode == 0, done.stderr
    exported = json.loads(done.stdout)
    assert exported["adapter"].endswith(name)
    assert exported["gguf"] == f"{output}/model.gguf"
    assert exported["gguf_agreement"]["differing"] == 0
    assert exported["modelfile"] and (folder / "gguf" / "Modelfile").is_file()


def test_a_program_that_is_here_is_given_the_model_and_one_that_is_not_before_the_work(
    trained: tuple[DaemonProcess, Path],
) -> None:
    daemon, folder = trained
    (folder / "user" / ".lmstudio").mkdir(parents=True)
    asked = ("export", "--output", str(folder / "farense"), "--to")
    there = {"HOME": str(folder / "user"), "PATH": "/nowhere"}
    absent = run(daemon, *asked, "ollama", **there)
    assert absent.returncode == 69 and absent.stderr.count("\n") == 1
    assert "Ollama is not on this machine." in absent.stderr
    assert not (folder / "farense").exists()
    done = run(daemon, *asked, "lm-studio", "--gguf-type", "q8_0", **there)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("LM Studio lists it as safetrain/farense.\n")
    place = folder / "user" / ".lmstudio" / "models" / "safetrain" / "farense"
    assert (place / "farense.gguf").read_bytes()[:4] == b"GGUF"


def test_the_api_gives_it_to_a_program_too(
    trained: tuple[DaemonProcess, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, _folder = trained
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".lmstudio").mkdir()
    with safetrain.connect(str(daemon.home.root), autostart=False) as client:
        told = client.job(1).export(str(tmp_path / "mine"), gguf_type="f16", to="lm-studio")
        with pytest.raises(InvalidInput):
            client.job(1).export(str(tmp_path / "other"), to="olama")
    assert (told["program"], told["name"]) == ("lm-studio", "safetrain/mine")
    assert (tmp_path / ".lmstudio/models/safetrain/mine/mine.gguf").is_file()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--output", "model"], 73, "is not empty. Give a new or an empty folder"),
        (["--output", "new", "--checkpoint", "none"], 66, "Job 1 has no checkpoint none."),
        (["9", "--output", "new"], 66, "There is no job 9."),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    trained: tuple[DaemonProcess, Path], arguments: list[str], code: int, sentence: str
) -> None:
    daemon, folder = trained
    arguments = [str(folder / a) if a in ("model", "new") else a for a in arguments]
    done = run(daemon, "export", *arguments)
    assert done.returncode == code
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert not (folder / "new").exists()


def test_while_a_job_trains_the_gpu_is_busy_unless_one_waits(
    trained: tuple[DaemonProcess, Path],
) -> None:
    daemon, folder = trained
    spec = JobSpec(
        model=str(folder / "model"),
        train=str(folder / "data" / "train.jsonl"),
        valid=str(folder / "data" / "valid.jsonl"),
        output=str(folder / "long"),
        settings={"num_epochs": 10_000, "max_seq_length": 96},
    )
    job = daemon.submit(spec).job.id
    daemon.wait_for_state(job, JobState.RUNNING)
    busy = run(daemon, "export", "1", "--output", str(folder / "busy"))
    assert busy.returncode == 75 and "--wait" in busy.stderr
    command = [sys.executable, "-m", "safetrain", "export", "1", "--wait", "--json", "--output"]
    waiting = subprocess.Popen(
        [*command, str(folder / "later")], env=daemon.environment(), stdout=subprocess.DEVNULL
    )
    wait_for(lambda: daemon.job(job).step > 1, what="the training goes on")
    assert run(daemon, "cancel", str(job)).returncode == 0
    assert waiting.wait(60) == 0
    assert (folder / "later" / "model.safetensors").is_file()
    assert not (folder / "busy").exists()

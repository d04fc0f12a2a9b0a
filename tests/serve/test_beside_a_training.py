"""`safetrain serve` beside trainings: it gives way, names the adapter, and changes no result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from safetrain_shared.jobs import FINAL, JobSpec, JobState
from safetraind.storage.manifest import sha256
from tests.harness import DaemonProcess, wait_for
from tests.serve.served import LONG, Served, machine_in, roomy_model
from tests.tiny import make_chat_data

SETTINGS = {"batch_size": 2, "max_seq_length": 64, "num_epochs": 3, "lora_layers": 2, "seed": 7}


@dataclass
class Trained:
    """A finished job, and what a program that was asking when it began was told."""

    id: int
    adapter: Path
    cut: openai.APIError
    refused: openai.APIStatusError

    @property
    def weights(self) -> Path:
        return self.adapter / "adapters.safetensors"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    yield from machine_in(tmp_path_factory.mktemp("beside"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("files")
    roomy_model(found / "tiny")
    make_chat_data(found, train=20, valid=4)
    return found


def spec_of(folder: Path, output: str) -> JobSpec:
    files = [str(folder / name) for name in ("tiny", "train.jsonl", "valid.jsonl", output)]
    return JobSpec(*files, settings={**SETTINGS, "learning_rate": 1e-2})


@pytest.fixture(scope="module")
def trained(machine: DaemonProcess, folder: Path) -> Iterator[Trained]:
    """A job that was submitted while a program was being answered."""
    base = Served(machine, str(folder / "tiny"))
    answer = base.ask(max_tokens=LONG, stream=True)
    assert next(answer).choices
    job = machine.submit(spec_of(folder, "calm")).job
    with pytest.raises(openai.APIError) as cut:
        list(answer)

    def refused() -> openai.APIStatusError | None:
        try:
            base.ask()
        except openai.APIStatusError as error:
            return error if error.code == "serve.training" else None
        return None

    told = wait_for(refused, 60, "the training has the GPU")
    machine.wait_for_state(job.id, JobState.SUCCEEDED)
    yield Trained(job.id, folder / "calm" / "adapters", cut.value, told)
    base.end()


@pytest.mark.slow
def test_it_gives_way_to_a_training_and_says_so(trained: Trained) -> None:
    assert trained.cut.code == "serve.interrupted"
    assert not isinstance(trained.cut, openai.APIConnectionError)
    assert trained.refused.status_code == 503
    assert int(trained.refused.response.headers["retry-after"]) > 0
    assert f"Job {trained.id} " in trained.refused.message


def test_every_answer_names_the_adapter_and_its_hash(
    machine: DaemonProcess, folder: Path, trained: Trained
) -> None:
    ours, base = Served(machine, str(trained.id)), Served(machine, str(folder / "tiny"))
    newest = Served(machine)
    answer = ours.ask()
    assert (ours.model, answer.model) == ("job-1", "tiny:job-1")
    digest = sha256(trained.weights)
    assert answer.system_fingerprint == f"adapter-{digest[:16]}"
    assert answer.safetrain["adapter_sha256"] == digest
    assert answer.safetrain["adapter"] == str(trained.adapter)
    assert answer.choices[0].message.content != base.text()
    assert newest.model == "safetrain"
    assert newest.ask().system_fingerprint == answer.system_fingerprint
    for served in (ours, base, newest):
        assert served.end() == ""


def test_a_training_that_is_asked_ends_equal_to_the_bit(
    machine: DaemonProcess, folder: Path, trained: Trained
) -> None:
    live = Served(machine)
    answers = []
    job = machine.submit(spec_of(folder, "asked")).job

    def ask_until_it_ends() -> bool:
        try:
            answer = live.ask(temperature=1.0)
        except openai.APIStatusError as error:
            assert error.status_code == 503
        else:
            if answer.safetrain["training"]:
                answers.append(answer)
        return machine.state(job.id) in FINAL

    wait_for(ask_until_it_ends, 120)
    assert machine.state(job.id) is JobState.SUCCEEDED
    assert answers
    step = answers[0].safetrain["step"]
    assert answers[0].system_fingerprint == f"job-{job.id}-step-{step}"
    assert answers[0].model == f"tiny:job-{job.id}@step-{step}"
    assert sha256(folder / "asked" / "adapters" / "adapters.safetensors") == sha256(trained.weights)
    assert live.end() == ""


def test_an_adapter_that_cannot_be_loaded_is_an_error(
    machine: DaemonProcess, trained: Trained, tmp_path: Path
) -> None:
    kept = shutil.copytree(trained.adapter, tmp_path / "kept")
    served = Served(machine, str(trained.id))
    whole = served.text()
    content = trained.weights.read_bytes()
    trained.weights.write_bytes(content[: len(content) // 2])
    config = trained.adapter / "adapter_config.json"
    for _attempt in range(2):
        with pytest.raises(openai.InternalServerError) as broken:
            served.ask()
        assert broken.value.code == "adapter.unusable"
        assert broken.value.response.headers["x-should-retry"] == "false"
    trained.weights.unlink()
    with pytest.raises(openai.NotFoundError) as gone:
        served.ask()
    assert gone.value.code == "ask.no_adapter"
    shutil.copytree(kept, trained.adapter, dirs_exist_ok=True)
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_layers": 1}))
    with pytest.raises(openai.InternalServerError):
        served.ask()
    shutil.copytree(kept, trained.adapter, dirs_exist_ok=True)
    assert served.text() == whole
    assert served.end() == ""

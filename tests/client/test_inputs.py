"""What the user gives becomes absolute paths, checked settings and bytes, or one clear sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from safetrain import inputs
from safetrain.cli import main
from safetrain_proto.v1.jobs_pb2 import SubmitResponse
from safetrain_shared.errors import InvalidInput, InvalidSetting, NotFound
from safetrain_shared.paths import Home
from tests.client.builders import job
from tests.client.fake import FakeDaemon

Capture = pytest.CaptureFixture[str]


def _touch(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("{}\n")


def test_the_full_data_goes_before_the_sample_and_the_sample_before_the_packaged_one(
    home: Home,
) -> None:
    here = Path.cwd() / "data"
    assert inputs.data(None, None)[0].endswith("farense_train.jsonl")
    assert not inputs.data(None, None)[0].startswith(str(here))
    _touch(here, "farense_train.jsonl", "farense_valid.jsonl")
    assert inputs.data(None, None)[0] == str(here / "farense_train.jsonl")
    _touch(here, "train_v3_final_complete.jsonl")
    assert inputs.data(None, None)[0] == str(here / "farense_train.jsonl")
    _touch(here, "valid_v3_final_complete.jsonl")
    assert inputs.data(None, None)[1] == str(here / "valid_v3_final_complete.jsonl")


def test_one_data_file_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(InvalidInput) as alone:
        inputs.data(str(tmp_path / "a.jsonl"), None)
    assert alone.value.code == "client.no_validation"
    with pytest.raises(NotFound):
        inputs.data(str(tmp_path / "gone.jsonl"), None)
    with pytest.raises(InvalidInput) as other:
        inputs.data(None, "valid.jsonl")
    assert other.value.code == "client.no_training_data"


def test_a_model_is_a_folder_only_where_it_looks_like_one(home: Home) -> None:
    assert inputs.model("demo") == "demo"
    assert inputs.model("mlx-community/Mistral") == "mlx-community/Mistral"
    assert inputs.model("./m") == str(Path.cwd() / "m")
    _touch(Path.cwd() / "m", "config.json")
    assert inputs.model("m") == str(Path.cwd() / "m")


@pytest.mark.parametrize("command", ["validate", "preflight"])
def test_a_name_that_no_message_can_carry_is_a_sentence(
    command: str, home: Home, daemon: FakeDaemon, capsys: Capture
) -> None:
    name = os.fsdecode(b"a\xff\x1b.jsonl")
    arguments = [name] if command == "validate" else ["--train", name, "--valid", name]
    assert main([command, *arguments]) == InvalidInput.exit_code
    said = capsys.readouterr().err
    assert "is not UTF-8" in said and len(said.splitlines()) == 1
    assert daemon.requests == []
    with pytest.raises(InvalidInput):
        inputs.absolute("a\0b")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("6GB", 6_000_000_000),
        ("6,5 gib", 13 << 29),
        ("800M", 800_000_000),
        ("2GiB", 2 << 30),
        ("4000000", 4_000_000),
    ],
)
def test_an_amount_of_memory_is_read_as_people_write_it(text: str, size: int) -> None:
    assert inputs.memory(text) == size


@pytest.mark.parametrize("text", ["lots", "7", "-1GB", "6 apples", "9999999999TB"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting):
        inputs.memory(text)


def test_set_goes_over_the_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "recommended_config.json"
    file.write_text(json.dumps({"batch_size": 1, "learning_rate": 2e-4}))
    config = inputs.read_config(str(file))
    chosen = inputs.settings(config, ["batch_size=2", "mask_prompt=off"])
    assert chosen == {"batch_size": 2, "learning_rate": 2e-4, "mask_prompt": False}


@pytest.mark.parametrize("text", ["{", "[1]", '{"batch_size": "big"}', '{"colour": 1}'])
def test_a_configuration_that_cannot_be_used_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(InvalidInput):
        inputs.read_config(str(file))


def test_a_missing_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        inputs.read_config(str(tmp_path / "none.json"))


@pytest.mark.parametrize("pair", ["batch_size", "=2", "batch_size=lots", "batch_size=0", "x=1"])
def test_a_wrong_set_exits_78(pair: str, daemon: FakeDaemon, capsys: Capture) -> None:
    assert main(["submit", "--set", pair]) == 78
    assert capsys.readouterr().err.count("\n") == 1
    assert daemon.requests == []


def test_submit_sends_absolute_paths_and_prints_the_id(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.submitted = SubmitResponse(job=job(7), outcome=SubmitResponse.OUTCOME_QUEUED)
    arguments = ["--train", "a.jsonl", "--valid", "b.jsonl", "--set", "num_epochs=2"]
    assert main(["submit", *arguments, "--memory-budget", "6GB", "--fresh", "--after", "3"]) == 0
    assert capsys.readouterr().out == "Job 7 is queued.\n"
    request = daemon.requests[-1]
    assert request.spec.train == str(Path.cwd() / "a.jsonl")
    assert request.spec.output == str(Path.cwd() / "checkpoints_qlora")
    assert request.spec.model == inputs.DEFAULT_MODEL
    assert request.spec.settings.num_epochs == 2 and request.spec.memory_budget == 6 * 10**9
    assert not request.spec.settings.HasField("batch_size")
    assert request.fresh and request.after == 3


def test_every_submit_has_its_own_key(daemon: FakeDaemon) -> None:
    for _ in range(2):
        assert main(["submit"]) == 0
    assert len({request.idempotency_key for request in daemon.requests}) == 2


def test_a_wait_exits_as_the_job_ended(daemon: FakeDaemon) -> None:
    daemon.jobs = [job(7)]
    daemon.jobs[0].state = 8
    daemon.submitted = SubmitResponse(job=job(7))
    daemon.ended.set()
    assert main(["submit", "--wait"]) == 5

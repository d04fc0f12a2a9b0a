"""A configuration of mlx_lm.lora is read as it is: nothing is dropped without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safetrain import inputs
from safetrain.cli import main
from safetrain.mlx_lm_config import Config
from safetrain_proto.v1.jobs_pb2 import JobSpec, SubmitResponse
from safetrain_shared.errors import InvalidInput
from tests.client.builders import job
from tests.client.fake import FakeDaemon

Capture = pytest.CaptureFixture[str]

WHOLE = """\
model: mlx-community/Llama-3.2-1B
train: true
data: mine
adapter_path: trained
iters: 1000
num_layers: -1
batch_size: 2
grad_accumulation_steps: 4
grad_checkpoint: true
save_every: 100
val_batches: 25
seed: 7
optimizer: adamw
optimizer_config: {adamw: {betas: [0.9, 0.98]}}
lora_parameters: {rank: 16, scale: 10.0, dropout: 0.0, keys: [self_attn.q_proj], alpha: 3}
lr_schedule: {name: cosine_decay, warmup: 10, warmup_init: 1e-7, arguments: [1e-5, 1000, 1e-6]}
report_to: wandb
test: false
resume_adapter_file: null
"""


def read(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "lora.yaml"
    file.write_text(text)
    return inputs.read_config(str(file))


def test_every_key_is_read_or_noted(tmp_path: Path) -> None:
    config = read(tmp_path, WHOLE)
    assert config.settings == {
        "batch_size": 2,
        "gradient_accumulation": 4,
        "gradient_checkpointing": True,
        "max_steps": 250,
        "save_steps": 25,
        "eval_samples": 50,
        "seed": 7,
        "weight_decay": 0.01,
        "learning_rate": 1e-5,
        "lora_layers": 0,
        "lora_rank": 16,
        "lora_scale": 10.0,
        "lora_dropout": 0.0,
        "lora_targets": ("self_attn.q_proj",),
        "schedule": "cosine",
        "warmup_steps": 10,
    }
    assert (config.model, config.data) == ("mlx-community/Llama-3.2-1B", "mine")
    assert (config.output, config.counts["max_steps"]) == ("trained", 1000)
    assert {n.args["name"] for n in config.notes if n.code == "config.ignored"} == {
        "report_to",
        "lora_parameters.alpha",
        "lr_schedule.warmup_init",
        "optimizer_config.betas",
    }
    assert [n.code for n in config.notes].count("config.schedule") == 1


def test_what_the_file_leaves_out_is_left_to_the_planner(tmp_path: Path) -> None:
    config = read(tmp_path, "model: m\ntrain: true\ndata: d\nbatch_size: 2\nsave_every: null\n")
    assert config.settings == {"batch_size": 2} and config.notes == ()


def test_a_learning_rate_alone_is_constant_as_it_is_there(tmp_path: Path) -> None:
    config = read(tmp_path, "iters: 5\nlearning_rate: 1e-5\nnum_layers: '16'\nlr_schedule: null\n")
    constant = {"schedule": "constant", "warmup_steps": 0}
    unit = {"batch_size": 4, "gradient_accumulation": 1}  # of an iteration, by their defaults
    steps = {"max_steps": 5}
    assert config.settings == {"learning_rate": 1e-5, "lora_layers": 16} | constant | unit | steps


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("optimizer: muon", "muon"),
        ("optimizer: [adam]", "adam"),
        ("lora_parameters: []", "lora_parameters"),
        ("train: true\nlr_schedule: cosine_decay", "lr_schedule"),
        ("lr_schedule: {name: cosine_decay, arguments: 1e-5}", "lr_schedule.arguments"),
        ("lr_schedule: {name: step_decay, arguments: [1e-5]}", "step_decay"),
        ("lora_parameters: {keys: self_attn.q_proj}", "self_attn.q_proj"),
        ("lora_parameters: {rank: big}", "big"),
        ("num_layers: many", "num_layers"),
        ("num_layers: -2", "num_layers"),
        ("save_every: 0", "save_every"),
        ("save_every: .nan", "save_every"),
        ("iters: [1]", "iters"),
        ("train: true\nbatch_size: true", "batch_size"),
        ("model: 3", "model"),
        ("train: true\nfine_tune_type: full", "full"),
        ("train: true\nhf_dataset: {path: mlx-community/wikisql}", "mlx-community/wikisql"),
        ("train: true\nseed: 2024-01-01", "seed"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(tmp_path, text)
    assert named in str(refused.value)


@pytest.fixture
def asked(daemon: FakeDaemon) -> Any:
    """`safetrain submit` with a configuration in the current folder; the job that it asks for."""
    daemon.submitted = SubmitResponse(job=job(7))
    Path("mine").mkdir()
    Path("mine/train.jsonl").write_text('{"text": "a"}\n\n' * 400)

    def submit(text: str, *options: str) -> JobSpec:
        Path("lora.yaml").write_text(text)
        assert main(["submit", "--config", "lora.yaml", *options]) == 0
        return daemon.requests[-1].spec

    return submit


def test_model_data_and_folder_of_the_file_are_the_jobs(asked: Any, capsys: Capture) -> None:
    spec = asked(WHOLE)
    assert spec.model == "mlx-community/Llama-3.2-1B"
    assert spec.train == str(Path.cwd() / "mine" / "train.jsonl")
    assert spec.valid == str(Path.cwd() / "mine" / "valid.jsonl")
    assert spec.output == str(Path.cwd() / "trained")
    assert spec.settings.max_steps == 250  # of four iterations each
    assert not spec.settings.HasField("num_epochs")
    said = capsys.readouterr().err
    assert "report_to in the configuration is passed over" in said


def test_an_option_goes_before_the_file(asked: Any) -> None:
    data = ["--train", "a.jsonl", "--valid", "b.jsonl"]
    chosen = ["--output", "checkpoints_qlora", "--set", "num_epochs=1", "--set", "batch_size=1"]
    spec = asked("model: m\ndata: mlx-community/wikisql\n", "--model", "demo", *data, *chosen)
    assert (spec.model, spec.train) == ("demo", str(Path.cwd() / "a.jsonl"))
    assert spec.output == str(Path.cwd() / "checkpoints_qlora")
    assert (spec.settings.num_epochs, spec.settings.batch_size) == (1, 1)


def test_a_data_set_of_the_hub_is_refused(daemon: FakeDaemon, capsys: Capture) -> None:
    Path("lora.yaml").write_text("model: m\ndata: mlx-community/wikisql\n")
    assert main(["submit", "--config", "lora.yaml", "--json"]) == 65
    assert json.loads(capsys.readouterr().err)["error"]["args"]["data"] == "mlx-community/wikisql"
    assert daemon.requests == []

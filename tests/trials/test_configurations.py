"""A configuration means here what it means where it was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safetrain import inputs
from safetrain.mlx_lm_config import Config
from safetrain_shared.errors import InvalidInput, InvalidSetting, NotFound

LORA = "train: true\nmodel: demo\nlearning_rate: 1e-5\n"


def read(tmp_path: Path, text: str, name: str = "c.yaml") -> Config:
    (tmp_path / name).write_text(text)
    return inputs.read_config(str(tmp_path / name))


@pytest.mark.parametrize("name", ["c.yaml", "c.yml", "C.YAML"])
@pytest.mark.parametrize("rate", ["2e-4", "2.0e-4", "2E-4", "+2e-4", "0.0002"])
def test_a_number_with_an_exponent_is_a_number_in_yaml(
    name: str, rate: str, tmp_path: Path
) -> None:
    assert read(tmp_path, f"learning_rate: {rate}\n", name).settings == {"learning_rate": 2e-4}


@pytest.mark.parametrize("name", ["c.json", "c.yaml"])
def test_a_byte_order_mark_means_nothing(name: str, tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + json.dumps({"seed": 3}), name).settings == {"seed": 3}


def test_alpha_is_a_scale(tmp_path: Path) -> None:
    config = read(tmp_path, LORA + "lora_parameters: {rank: 8, alpha: 16, dropout: 0.0}\n")
    assert (config.settings["lora_scale"], config.settings["lora_rank"]) == (2.0, 8)
    assert [note.code for note in config.notes] == ["config.alpha"]


def test_an_adapter_to_start_from_is_taken_over(tmp_path: Path) -> None:
    config = read(tmp_path, LORA + "resume_adapter_file: old/adapters.safetensors\n")
    assert config.start_adapter == "old/adapters.safetensors"
    assert [note.code for note in config.notes] == ["config.start_adapter"]


def test_counts_keep_the_units_of_the_file(tmp_path: Path) -> None:
    """A file that counts iterations fixes what an iteration is; the planner may not choose it."""
    config = read(tmp_path, LORA + "iters: 40\nsteps_per_eval: 10\nbatch_size: 2\n")
    chosen = inputs.settings(config, [])
    assert (chosen["batch_size"], chosen["gradient_accumulation"]) == (2, 1)
    assert chosen["eval_steps"] == 10
    assert chosen["max_steps"] == 40
    chosen = inputs.settings(config, ["gradient_accumulation=3"])
    assert (chosen["eval_steps"], chosen["max_steps"]) == (3, 13), "as there: only whole steps"
    assert "max_steps" not in inputs.settings(config, ["num_epochs=2"])
    assert inputs.settings(config, ["max_steps=7"])["max_steps"] == 7
    ours = read(tmp_path, LORA + "iters: 40\nnum_epochs: 2\n")
    assert "max_steps" not in inputs.settings(ours, [])


def test_a_folder_of_data_that_is_missing_is_no_data_set(tmp_path: Path) -> None:
    for folder in ("/no/such/folder", "nowhere", f"{tmp_path}/none"):
        with pytest.raises(NotFound) as caught:
            inputs.data(None, None, folder)
        assert caught.value.code == "config.no_folder"
    with pytest.raises(InvalidInput) as refused:
        inputs.data(None, None, "mlx-community/WikiSQL")
    assert refused.value.code == "config.data_set"


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("epochs: 3", "num_epochs"),
        ("lr: 1e-4", "learning_rate"),
        ("learning-rate: 1e-4", "learning_rate"),
        ("Learning_Rate: 1e-4", "learning_rate"),
        ("lora_alpha: 16", "lora_scale"),
        ("use_dora: true", "fine_tune_type: dora"),
        ("train_on_inputs: true", "mask_prompt: false"),
        ("training: {learning_rate: 1e-4}", "learning_rate"),
        ("lora_parameters: {r: 8}", "lora_parameters.rank"),
    ],
)
def test_another_trainers_key_is_refused_with_its_name_here(
    line: str, ours: str, tmp_path: Path
) -> None:
    for text in (f"model: demo\n{line}\n", f"{line}\n"):
        with pytest.raises(InvalidSetting) as caught:
            read(tmp_path, text)
        assert caught.value.args_by_name["ours"] == ours


@pytest.mark.parametrize("line", ["use_dora: false", "lora_alpha: null", "epochs: 0"])
def test_another_trainers_key_that_is_off_is_passed_over(line: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"model: demo\n{line}\n").settings == {}


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_a_key_that_stands_twice_is_refused(name: str, tmp_path: Path) -> None:
    text = '{"learning_rate": 0.0001, "learning_rate": 0.001}'
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, text, name)
    assert caught.value.code == "config.doubled"


def test_a_rate_that_rises_is_refused(tmp_path: Path) -> None:
    schedule = "lr_schedule: {name: linear_schedule, arguments: [0.0, 1e-5, 100]}\n"
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, LORA + schedule)
    assert caught.value.code == "config.rising"


def test_a_data_set_of_the_hub_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, LORA + "hf_dataset: {path: some/one}\n")
    assert caught.value.args_by_name["data"] == "some/one"


def test_a_configuration_that_does_not_train_is_told(tmp_path: Path) -> None:
    config = read(tmp_path, LORA.replace("train: true", "train: false") + "iters: 4\n")
    assert [note.code for note in config.notes] == ["config.not_training"]

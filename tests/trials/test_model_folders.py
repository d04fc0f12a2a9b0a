"""What a model's folder says, against what mlx-lm makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from safetrain_shared.errors import InvalidInput
from safetraind.models.weight_files import INDEX, missing_weights
from safetraind.worker import config_keys
from safetraind.worker.loading import load
from safetraind.worker.model_reading import read_model
from tests.tiny import make_tiny_model
from tests.trials.inputs import with_config

SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED |= {"original_max_position_embeddings": 64}
FIRST, SECOND = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("m") / "m", layers=2)


def logits(folder: Path) -> Any:
    return load(str(folder)).model(mx.array([list(range(3, 40))])).tolist()


def test_rope_parameters_are_the_older_keys(model: Path, tmp_path: Path) -> None:
    old = with_config(model, tmp_path / "old", rope_theta=5e5)
    group = {"rope_theta": 5e5, "rope_type": "default"}
    new = with_config(model, tmp_path / "new", rope_theta=None, rope_parameters=group)
    assert logits(old) == logits(new) != logits(model)


def test_scaled_rope_parameters_are_honoured(model: Path, tmp_path: Path) -> None:
    group = {"rope_theta": 1e4, **SCALED}
    new = with_config(model, tmp_path / "new", rope_theta=None, rope_parameters=group)
    old = with_config(model, tmp_path / "old", rope_scaling=SCALED)
    assert logits(new) == logits(old) != logits(model)


@pytest.mark.parametrize(
    "keys",
    [
        {"final_logit_softcapping": 30.0},
        {"logit_scale": 0.1},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ],
)
def test_keys_that_change_the_model_and_are_dropped_are_refused(
    keys: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    folder = with_config(model, tmp_path / "m", **keys)
    assert read_model(folder, ()).lost
    with pytest.raises(InvalidInput) as caught:
        load(str(folder))
    assert caught.value.code == "model.keys_lost"


@pytest.mark.parametrize("keys", [{"hidden_act": "silu"}, {"logit_scale": 1.0}, {"my_notes": 1}])
def test_keys_that_change_nothing_are_not(keys: dict[str, Any], model: Path) -> None:
    config = json.loads((model / "config.json").read_text()) | keys
    assert config_keys.read(config).lost == ()


def test_every_key_that_is_dropped_is_told_but_for_bookkeeping(model: Path, tmp_path: Path) -> None:
    keys = {"my_notes": 1, "new_kind_of_gate": {"size": 8}, "use_gate": False, "logit_scale": 1.0}
    folder = with_config(model, tmp_path / "m", torch_dtype="float32", **keys)
    assert read_model(folder, ()).dropped == ("my_notes", "new_kind_of_gate")
    assert read_model(model, ()).dropped == ()


def test_targets_that_are_no_layers_are_named(model: Path) -> None:
    found = read_model(model, ["self_attn.q_proj", "q_proj", "mlp.experts.up_proj"])
    assert found.missing == ("q_proj", "mlp.experts.up_proj")
    assert "self_attn.q_proj" in found.known


def sharded(model: Path, folder: Path, keep: tuple[str, ...], index: dict[str, Any] | None) -> Path:
    """The model in two files, of which those in `keep` are there."""
    shutil.copytree(model, folder)
    weights: Any = mx.load(str(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {FIRST: names[::2], SECOND: names[1::2]}
    for name in keep:
        mx.save_safetensors(str(folder / name), {n: weights[n] for n in parts[name]})
    if index is not None:
        full = {name: file for file, part in parts.items() for name in part}
        (folder / INDEX).write_text(json.dumps({"weight_map": full | index}))
    return folder


def test_files_are_missing_by_the_rule_of_what_loads(model: Path, tmp_path: Path) -> None:
    both = FIRST, SECOND
    assert missing_weights(sharded(model, tmp_path / "whole", both, {})) == []
    assert missing_weights(sharded(model, tmp_path / "none", both, None)) == []
    assert missing_weights(sharded(model, tmp_path / "half", (FIRST,), {})) == [SECOND]
    assert missing_weights(sharded(model, tmp_path / "bare", (FIRST,), None)) == [SECOND]
    stale = dict.fromkeys(mx.load(f"{model}/model.safetensors"), "model-00003-of-00010.safetensors")
    assert missing_weights(sharded(model, tmp_path / "stale", both, stale)) == []
    numbers = {"model.norm.weight": 1}
    assert missing_weights(sharded(model, tmp_path / "numbers", both, numbers)) == []


def test_parameters_that_are_missing_are_named_with_the_cause(model: Path, tmp_path: Path) -> None:
    folder = sharded(model, tmp_path / "half", (FIRST,), None)
    with pytest.raises(InvalidInput) as caught:
        load(str(folder))
    assert caught.value.code == "model.parameters_missing"
    assert "model." in str(caught.value.args_by_name["names"])

"""Models and adapters load, or a sentence says why not."""

from __future__ import annotations

import json
import shutil

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from safetrain_shared.errors import InvalidInput, NotFound, SafetrainError, Unreachable
from safetrain_shared.messages import SENTENCES
from safetraind.worker import loading
from safetraind.worker.loading import attach_adapter, detach_adapter, load
from tests.tiny import make_tiny_model


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("q") / "packed", layers=2, quantized=True)


def logits(loaded):
    return loaded.model(mx.array([loaded.tokenizer.encode("Faro, no Algarve")]))


def test_a_packed_model_stays_packed_unless_dequantized(packed):
    as_is, wide = load(str(packed), dequantize=False), load(str(packed), dequantize=True)
    assert isinstance(as_is.model.layers[0].mlp.up_proj, nn.QuantizedLinear)
    assert isinstance(wide.model.layers[0].mlp.up_proj, nn.Linear)
    assert {v.dtype for _, v in tree_flatten(wide.model.parameters())} == {mx.float32}
    assert mx.abs(logits(as_is) - logits(wide)).max().item() < 1e-4
    assert not wide.model.training


def test_dequantizing_rounds_no_weight_to_sixteen_bits(packed):
    wide = load(str(packed), dequantize=True).model.layers[0].mlp.up_proj.weight
    raw = mx.load(str(packed / "model.safetensors"))
    name = "model.layers.0.mlp.up_proj"
    parts = [raw[f"{name}.{p}"] for p in ("weight", "scales", "biases")]
    exact = mx.dequantize(*(p if p.dtype == mx.uint32 else p.astype(mx.float32) for p in parts),
                          group_size=32, bits=4)  # fmt: skip
    assert mx.array_equal(wide, exact).item()


def test_on_a_cpu_a_model_is_dequantized_where_memory_allows(packed, monkeypatch):
    class Host:
        memory_available = 1 << 40

    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    monkeypatch.setattr(loading.host, "gather", Host)
    assert isinstance(load(str(packed)).model.layers[0].mlp.up_proj, nn.Linear)
    Host.memory_available = 1 << 10
    assert isinstance(load(str(packed)).model.layers[0].mlp.up_proj, nn.QuantizedLinear)
    mx.set_default_device(before)


def refused(path, **how):
    with pytest.raises(SafetrainError) as error:
        load(str(path), **how)
    assert error.value.code in SENTENCES
    return error.value


def test_a_model_that_cannot_be_loaded_is_refused_with_the_reason(tiny_model, tmp_path):
    assert refused(tmp_path / "nowhere").code == "path.missing"
    folder = shutil.copytree(tiny_model, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    unknown, exits = {"model_type": "no_such_model"}, {"model_type": "olmo"}
    changes = [
        (unknown, "model.does_not_load"),
        (exits, "model.does_not_load"),
        ({"hidden_size": 128}, "model.does_not_load"),
        ({"num_hidden_layers": 9}, "model.parameters_missing"),
    ]
    for change, code in changes:
        (folder / "config.json").write_text(json.dumps(config | change))
        error = refused(folder)
        assert error.code == code
        assert "\n" not in str(error)
    (folder / "config.json").write_text("{")
    assert isinstance(refused(folder), InvalidInput)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    assert refused(folder).code == "model.does_not_load"
    (folder / "model.safetensors").unlink()
    assert refused(folder).code == "model.does_not_load"


def test_code_that_came_with_a_model_runs_only_when_trusted(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_file": "own.py"}))
    (folder / "own.py").write_text(
        "from pathlib import Path\n"
        "from mlx_lm.models.llama import Model, ModelArgs\n"
        "(Path(__file__).parent / 'ran').touch()\n"
    )
    assert refused(folder).code == "model.needs_remote_code"
    assert not (folder / "ran").exists()
    load(str(folder), trust_remote_code=True)
    assert (folder / "ran").exists()


def test_without_network_a_repository_of_the_hub_is_named_with_a_way_out(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    error = refused("mlx-community/Mistral-7B-Instruct-v0.3-4bit")
    assert isinstance(error, Unreachable)
    assert error.code == "model.hub_offline"
    assert refused("no/such/name").code == "model.hub_unknown"


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_goes_on_and_comes_off(loaded, adapters, kind):
    before = logits(loaded)
    attach_adapter(loaded.model, adapters[kind])
    assert mx.abs(logits(loaded) - before).max().item() > 0.1
    detach_adapter(loaded.model)
    assert mx.array_equal(logits(loaded), before).item()


def test_an_adapter_of_another_model_is_refused_and_the_base_stays(loaded, adapters, tmp_path):
    before = logits(loaded)
    with pytest.raises(NotFound):
        attach_adapter(loaded.model, tmp_path)
    folder = shutil.copytree(adapters["lora"], tmp_path / "copy")
    weights = mx.load(str(folder / "adapters.safetensors"))
    wrong = {name: mx.zeros((3, 3)) for name in weights}
    mx.eval(weights)  # before the file is replaced
    part = dict(list(weights.items())[1:])
    for content in (wrong, part, {}, {"model.nothing.lora_a": mx.zeros((1,))}):
        mx.save_safetensors(str(folder / "adapters.safetensors"), content)
        with pytest.raises(InvalidInput) as error:
            attach_adapter(loaded.model, folder)
        assert error.value.code == "adapter.unusable"
    (folder / "adapters.safetensors").unlink()
    with pytest.raises(InvalidInput):
        attach_adapter(loaded.model, folder)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(InvalidInput):
        attach_adapter(loaded.model, folder)
    assert mx.array_equal(logits(loaded), before).item()

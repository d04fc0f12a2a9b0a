"""A model's folder is read without raising, whatever is in it, and in the words of each family."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from benchmarks.architectures import tiny_model
from safetrain_shared.findings import Status
from safetrain_shared.messages import say
from safetrain_shared.settings import TrainingSettings
from safetraind.models.model_config import ModelFacts, read_model
from safetraind.preflight.check import carry_out
from safetraind.preflight.checks import of_section
from safetraind.worker.loading import load
from safetraind.worker.training.adapters import attach, weights
from tests.preflight.facts import SPEC, facts

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 512,
}
BEFORE = {"original_max_position_embeddings": 1024}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 400}
MAMBA = {
    "model_type": "mamba",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "vocab_size": 400,
}
OPENELM = {
    "model_type": "openelm",
    "model_dim": 64,
    "num_transformer_layers": 2,
    "num_query_heads": [4, 4],
    "vocab_size": [400],
}


def read(folder: Path, config: Any, index: Any = None) -> ModelFacts:
    """A model of one matrix with this configuration."""
    folder.mkdir()
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text)
    (folder / "tokenizer.json").write_text("{}")
    entry = {"dtype": "F32", "shape": [8, 4], "data_offsets": [0, 128]}
    header = json.dumps({"model.layers.0.self_attn.q_proj.weight": entry}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(128)
    (folder / "model.safetensors").write_bytes(content)
    if index is not None:
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return read_model("m", folder)


BAD: dict[str, tuple[Any, Any, str]] = {
    "no heads": (LLAMA | {"num_attention_heads": 0}, None, "num_attention_heads: 0"),
    "a negative size": (LLAMA | {"hidden_size": -64}, None, "hidden_size: -64"),
    "half a layer": (LLAMA | {"num_hidden_layers": 1.5}, None, "num_hidden_layers: 1.5"),
    "a size in words": (LLAMA | {"vocab_size": "many"}, None, "vocab_size: 'many'"),
    "infinitely many layers": (
        json.dumps(LLAMA).replace('"num_hidden_layers": 2', '"num_hidden_layers": Infinity'),
        None,
        "num_hidden_layers: inf",
    ),
    "a quantization in words": (LLAMA | {"quantization": "4bit"}, None, "quantization: '4bit'"),
    "a list": ([], None, "config.json: list"),
    "a number as its text": (LLAMA | {"text_config": 7}, None, "text_config: int"),
    "no kind": ({}, None, "model_type"),
    "too deep": ("[" * 100_000 + "]" * 100_000, None, "RecursionError"),
    "not JSON": ("{", None, "JSONDecodeError"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_is_a_reason_and_never_raises(what: str, tmp_path: Path) -> None:
    config, index, reason = BAD[what]
    found = read(tmp_path / "m", config, index)
    assert reason in found.reason and len(found.reason) <= 200


@pytest.mark.parametrize(
    "index", [{"weight_map": []}, {}, [], {"weight_map": {"a": 1}}, {"weight_map": {"a": None}}]
)
def test_an_index_that_is_none_is_passed_over_as_mlx_lm_does(index: Any, tmp_path: Path) -> None:
    found = read(tmp_path / "m", LLAMA, index)
    assert (found.reason, found.missing) == ("", ())


@pytest.mark.parametrize("header", [b"[]", b'{"a": 1}', b'{"a": {"data_offsets": []}}', b"\xff"])
def test_a_damaged_header_is_a_reason(header: bytes, tmp_path: Path) -> None:
    read(tmp_path / "m", LLAMA)
    content = struct.pack("<Q", len(header)) + header
    (tmp_path / "m/model.safetensors").write_bytes(content)
    assert read_model("m", tmp_path / "m").reason


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (LLAMA, (64, 2, 4, 4, 16, 128, 512)),
        (LLAMA | {"num_key_value_heads": 2, "head_dim": 32}, (64, 2, 4, 2, 32, 128, 512)),
        (GPT2, (64, 3, 4, 4, 16, 256, 400)),
        (MAMBA, (64, 3, 0, 0, 64, 128, 400)),
        ({"model_type": "mistral3", "text_config": LLAMA}, (64, 2, 4, 4, 16, 128, 512)),
    ],
)
def test_a_shape_is_read_in_the_words_of_its_family(
    config: dict[str, Any], sizes: tuple[int, ...], tmp_path: Path
) -> None:
    found = read(tmp_path / "m", config)
    shape = found.shape
    assert found.known and not found.reason and shape is not None
    assert sizes == (
        shape.hidden,
        shape.layers,
        shape.heads,
        shape.kv_heads,
        shape.head_dim,
        shape.intermediate,
        shape.vocabulary,
    )


@pytest.mark.parametrize(
    ("changes", "positions"),
    [
        ({}, 0),
        ({"max_position_embeddings": 4096}, 4096),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 16384),
        ({"rope_scaling": {"type": "mrope", "factor": 4.0}}, 4096),  # three axes, no further reach
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 4096),
        # Llama 3.1: the length before scaling times the factor is less than what it was trained on.
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2, **BEFORE}}, 4096),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 16.0, **BEFORE}}, 16384),
    ],
)
def test_the_longest_sequence_counts_rope_scaling(
    changes: dict[str, Any], positions: int, tmp_path: Path
) -> None:
    own = {"max_position_embeddings": 4096, **changes} if changes else {}
    found = read(tmp_path / "m", LLAMA | own)
    assert (found.positions, found.learned_positions) == (positions, False)


def test_gpt2_has_a_vector_for_each_position(tmp_path: Path) -> None:
    found = read(tmp_path / "m", GPT2 | {"n_positions": 1024})
    assert (found.positions, found.learned_positions) == (1024, True)


def test_experts_count_in_the_adapter_and_in_what_a_token_passes_through(tmp_path: Path) -> None:
    folder = tiny_model.make("qwen3_moe", tmp_path)
    shape = read_model("m", folder).shape
    assert shape is not None and shape.routed > 0
    experts = [m for m in shape.linears if m.experts > 1]
    assert {m.name.rpartition(".")[2] for m in experts} == {"gate_proj", "up_proj", "down_proj"}
    assert {shape.expert_width} == {m.inputs for m in experts if m.name.endswith("down_proj")}
    settings = TrainingSettings(lora_layers=0)
    trained = load(str(folder)).model
    attach(trained, settings, seed=0)
    count = sum(weight.size for weight in weights(trained).values())
    assert shape.adapter_parameters(settings.lora_rank, 0) == count


@pytest.mark.parametrize(("family", "sinks"), [("gpt_oss", True), ("qwen3_moe", False)])
def test_attention_sinks_are_told_by_the_weights(family: str, sinks: bool, tmp_path: Path) -> None:
    shape = read_model("m", tiny_model.make(family, tmp_path)).shape
    assert shape is not None and shape.sinks == sinks


def test_a_model_whose_shape_cannot_be_told_is_refused_by_name(tmp_path: Path) -> None:
    model = read(tmp_path / "m", OPENELM)
    assert model.known and not model.reason and model.shape is None
    found = list(carry_out(of_section("model"), SPEC, facts(model=model), set()))
    (refused,) = (f for f in found if f.status is Status.FAILED)
    assert (refused.code, refused.blocks) == ("model.no_shape", True)
    assert "openelm" in say(refused, lang="en") and "openelm" in say(refused, lang="pt")

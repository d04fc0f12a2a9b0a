"""A sample of `make architectures`: the ways that fail first where an architecture is special."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest

from benchmarks.architectures import tiny_configs, tiny_model
from benchmarks.architectures.__main__ import no_architectures
from benchmarks.architectures.trial import WAYS, Trial
from safetrain_shared.errors import InvalidSetting
from safetraind.worker import config_keys

RIGHT = {
    "qwen3_5": ["packing", "checkpointing", "blocks", "resume"],  # gated delta net, nested
    "nemotron_h": ["packing", "chunks"],  # SSD, experts, another name for its body
    "gemma3": ["chunks", "blocks"],  # nested, windows
    "gemma2": ["chunks"],  # a capped head
    "gemma3n": ["lora", "fuse"],  # reads weights that an adapter would hide
    "gpt_oss": ["blocks"],  # attention sinks
    "deepseek_v3": ["blocks"],  # attention scores that are added
}
REFUSED = {
    "afm7": ("checkpointing", "train.no_checkpointing"),  # keys handed on from layer to layer
    "dbrx": ("compiled", "train.impossible"),  # reads its router's choices
    "qwen3_moe": ("dora", "train.dora_experts"),
    "gpt2": ("packing", "train.packing_unsupported"),  # absolute positions
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    mx.disable_compile()
    return tmp_path


@pytest.mark.parametrize("name", RIGHT)
def test_the_ways_of_a_special_architecture_give_the_plain_gradient(name: str, place: Path) -> None:
    trial = Trial(tiny_model.make(name, place))
    for way in RIGHT[name]:
        WAYS[way](trial)


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_train_wrongly_is_refused(name: str, place: Path) -> None:
    way, code = REFUSED[name]
    trial = Trial(tiny_model.make(name, place))
    with pytest.raises(InvalidSetting) as refused:
        WAYS[way](trial)
    assert refused.value.code == code


def test_no_key_is_called_lost_that_a_wrapped_language_model_reads() -> None:
    """qwen3_5_moe imports a class of the module whose arguments read its text_config."""
    for name in sorted({*tiny_configs.names()} - no_architectures() - {"olmo"}):  # olmo: a package
        assert config_keys.read(tiny_configs.config(name)).lost == (), name


def test_every_module_of_mlx_lm_is_an_architecture_or_known_not_to_be() -> None:
    assert no_architectures() <= set(tiny_configs.names())

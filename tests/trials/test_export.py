"""Models whose tokenizers are unusual, exported as GGUF: rightly, or with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.errors import InvalidInput
from safetraind.worker.convert.gguf_reader import read_gguf
from safetraind.worker.export import gguf_writer
from safetraind.worker.loading import load
from tests.tiny import CHAT_TEMPLATE, make_tiny_model
from tests.trials import inputs
from tests.trials.inputs import with_config, with_tokenizer_config


def written(model: Path, file: Path) -> Any:
    """The metadata of the model's GGUF file."""
    loaded = load(str(model), dequantize=False)
    gguf_writer.write(file, loaded.model, loaded.config, loaded.folder, loaded.tokenizer)
    return read_gguf(file).metadata


def test_a_padding_token_beyond_the_embedding_is_left_out(tmp_path: Path) -> None:
    beyond = inputs.with_tokens_beyond(tmp_path / "m", "[PAD]")
    folder = with_tokenizer_config(beyond, tmp_path / "pad", pad_token="[PAD]")
    metadata = written(folder, tmp_path / "m.gguf")
    assert len(metadata["tokenizer.ggml.tokens"]) == 320
    assert "tokenizer.ggml.padding_token_id" not in metadata


def test_of_several_templates_the_default_is_written(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "m")
    named = [{"name": "default", "template": CHAT_TEMPLATE}]
    named += [{"name": "tool_use", "template": inputs.TOOLS}]
    folder = with_tokenizer_config(model, tmp_path / "named", chat_template=named)
    assert written(folder, tmp_path / "m.gguf")["tokenizer.chat_template"] == CHAT_TEMPLATE


def test_rope_parameters_reach_the_file(tmp_path: Path) -> None:
    group = {"rope_theta": 5e5, "rope_type": "default"}
    model = make_tiny_model(tmp_path / "m")
    folder = with_config(model, tmp_path / "r", rope_theta=None, rope_parameters=group)
    assert written(folder, tmp_path / "m.gguf")["llama.rope.freq_base"] == pytest.approx(5e5)


def test_scaled_rope_parameters_reach_the_file_or_are_refused_with_a_sentence(
    tmp_path: Path,
) -> None:
    model = make_tiny_model(tmp_path / "m")
    group = {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}
    folder = with_config(model, tmp_path / "r", rope_theta=None, rope_parameters=group)
    assert written(folder, tmp_path / "m.gguf")["llama.rope.scaling.factor"] == 2.0
    group |= {"rope_type": "yarn", "original_max_position_embeddings": 64}
    folder = with_config(model, tmp_path / "y", rope_theta=None, rope_parameters=group)
    with pytest.raises(InvalidInput) as caught:
        gguf_writer.check_takes(folder)
    assert caught.value.code == "export.gguf_architecture"

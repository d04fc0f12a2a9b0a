"""What an answer may take of the memory: the formula, and that it bounds what really is taken."""

from __future__ import annotations

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from safetraind.worker.inference.context_limit import Shape, answer_bytes, longest, shape_of
from safetraind.worker.inference.generation import Question, generate
from safetraind.worker.loading import item_bytes, load
from tests.ask.helpers import user
from tests.tiny import make_tiny_model

MISTRAL = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "vocab_size": 32768,
}


def test_a_token_of_mistral_7b_takes_128_kib_in_16_bits():
    assert shape_of(MISTRAL, 2).token_bytes == 128 << 10
    assert shape_of({**MISTRAL, "head_dim": 64}, 4).token_bytes == 128 << 10
    assert shape_of({"text_config": MISTRAL}, 2) == shape_of(MISTRAL, 2)


def test_what_a_config_does_not_tell_counts_nothing():
    assert answer_bytes(shape_of({}, 2), 4096) == 0


@pytest.mark.parametrize("tokens", [1, 255, 256, 257, 1000, 4096])
def test_the_longest_that_fits_is_the_longest(tokens: int):
    shape = shape_of(MISTRAL, 2)
    found = longest(shape, answer_bytes(shape, tokens), 10_000)
    assert found >= tokens
    assert (
        answer_bytes(shape, found) <= answer_bytes(shape, tokens) < answer_bytes(shape, found + 1)
    )


def test_without_room_not_even_one_token_fits_and_with_much_the_limit_holds():
    shape = Shape(2, 4, 2, 16, 64, 128, 512, 4)
    assert longest(shape, 0, 100) == longest(shape, -5, 100) == 0
    assert longest(shape, 1 << 40, 100) == 100


def test_no_answer_is_longer_than_the_model_takes():
    shape = shape_of({**MISTRAL, "max_position_embeddings": 2048}, 2)
    assert longest(shape, 1 << 60, 4096) == 2048
    assert longest(shape, 1 << 60, 1000) == 1000
    nested = shape_of({"text_config": {**MISTRAL, "max_position_embeddings": 2048}}, 2)
    assert longest(nested, 1 << 60, 4096) == 2048


@pytest.mark.parametrize("tokens", [60, 700, 1400])
def test_an_answer_takes_no_more_than_it_was_given(tmp_path, tokens: int):
    model = load(str(make_tiny_model(tmp_path / "m", layers=4, hidden=128)), dequantize=False)
    prompt = [5 + place % 300 for place in range(tokens)]
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    list(generate(model.model, model.tokenizer, prompt, Question(tuple(user()), max_tokens=20)))
    taken = mx.get_peak_memory() - before
    expected = answer_bytes(shape_of(model.config, item_bytes(model.model)), tokens + 20)
    assert 0.3 * expected < taken <= expected


def test_a_model_computes_in_the_widest_type_that_its_weights_have(tmp_path):
    model = load(str(make_tiny_model(tmp_path / "m", layers=1)), dequantize=False).model
    assert item_bytes(model) == 4
    model.set_dtype(mx.bfloat16)
    assert item_bytes(model) == 2


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_does_not_change_the_type_that_the_model_computes_in(tmp_path, dora: bool):
    model = load(str(make_tiny_model(tmp_path / "m", layers=1)), dequantize=False).model
    model.set_dtype(mx.bfloat16)
    parameters = {"rank": 4, "scale": 1.0, "dropout": 0.0}
    linear_to_lora_layers(model, 1, parameters, use_dora=dora)
    assert mx.float32 in {value.dtype for _, value in tree_flatten(model.parameters())}
    assert item_bytes(model) == 2

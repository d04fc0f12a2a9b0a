"""Sampling, chat templates and the questions themselves."""

from __future__ import annotations

import math
from collections import Counter

import mlx.core as mx
import pytest

from safetrain_shared.errors import InvalidInput
from safetraind.worker.inference.generation import (
    DEFAULT_MAX_TOKENS,
    encode_prompt,
    make_sampler,
    question_from_json,
)
from tests.ask.helpers import user

LOGPROBS = mx.log(mx.array([[0.5, 0.3, 0.15, 0.05]]))


def draws(count, temperature, top_p=0.0, seed=0):
    sample = make_sampler(temperature, top_p, seed)
    return Counter(sample(LOGPROBS).item() for _ in range(count))


def test_without_temperature_the_likeliest_token_is_taken():
    assert draws(5, 0) == {0: 5}


def test_draws_follow_the_probabilities():
    found = draws(2000, 1.0)
    for token, expected in enumerate([0.5, 0.3, 0.15, 0.05]):
        deviation = math.sqrt(expected * (1 - expected) / 2000)
        assert abs(found[token] / 2000 - expected) < 5 * deviation


def test_a_low_temperature_sharpens_and_a_high_one_flattens():
    assert draws(500, 0.2)[0] > draws(500, 1.0)[0] > draws(500, 5.0)[0]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.4, {0}), (0.6, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p, kept):
    assert set(draws(600, 2.0, top_p)) == kept


def test_sampling_leaves_the_global_random_state_alone():
    mx.random.seed(3)
    before = mx.random.state[0].tolist()
    draws(10, 1.0, 0.9)
    make_sampler(1.0, 0.0, None)(LOGPROBS)
    assert mx.random.state[0].tolist() == before


def test_a_question_has_defaults_and_passes_over_unknown_fields():
    question = question_from_json({"messages": user("Olá"), "colour": 1, "seed": None})
    assert (question.max_tokens, question.seed, question.temperature) == (
        DEFAULT_MAX_TOKENS,
        None,
        0,
    )
    assert question_from_json({"messages": user("Olá"), "seed": 0}).seed == 0


class Tokenizer:
    """A tokenizer whose template refuses system turns, as Gemma's does."""

    has_chat_template = True

    def apply_chat_template(self, turns, add_generation_prompt):
        from jinja2 import TemplateError

        roles = [turn["role"] for turn in turns]
        if roles != (["user", "assistant"] * len(roles))[: len(roles)]:
            raise TemplateError("Conversation roles must alternate")
        return [len(turn["content"]) for turn in turns]


def test_a_system_turn_joins_the_question_where_the_template_has_no_place_for_it():
    turns = [{"role": "system", "content": "Sê breve."}, *user("Olá")]
    assert encode_prompt(Tokenizer(), turns) == [len("Sê breve.\n\nOlá")]


def test_an_order_that_the_template_refuses_is_said():
    with pytest.raises(InvalidInput) as refused:
        encode_prompt(Tokenizer(), [*user("a"), *user("b")])
    assert refused.value.code == "ask.template_refuses"
    with pytest.raises(InvalidInput):
        encode_prompt(Tokenizer(), [{"role": "system", "content": "s"}, *user("a"), *user("b")])


def test_a_tokenizer_without_a_template_gets_the_bare_text(loaded):
    loaded.tokenizer.has_chat_template = False
    assert encode_prompt(loaded.tokenizer, user("Olá")) == loaded.tokenizer.encode("Olá")

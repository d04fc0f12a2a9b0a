"""The next turn of a conversation computes what is new, and says what it would have said anyway."""

from __future__ import annotations

import pytest

from safetraind.worker.inference.generation import AnswerDone, Question, encode_prompt, generate
from safetraind.worker.inference.prompt_cache import Conversation
from tests.ask.helpers import user


@pytest.fixture
def computed(loaded, monkeypatch):
    """How many tokens each call of the model computed, one entry a call."""
    calls: list[int] = []
    kind = type(loaded.model)
    call = kind.__call__

    def counting(self, inputs, *args, **kwargs):
        calls.append(inputs.shape[1])
        return call(self, inputs, *args, **kwargs)

    monkeypatch.setattr(kind, "__call__", counting)
    return calls


def said(loaded, messages, conversation=None, **how) -> tuple[str, AnswerDone]:
    question = Question(tuple(messages), max_tokens=8)
    prompt = encode_prompt(loaded.tokenizer, messages)
    *pieces, done = generate(
        loaded.model, loaded.tokenizer, prompt, question, conversation=conversation, **how
    )
    return "".join(pieces), done


def turns(loaded):
    first = user("Onde joga?")
    answer, _ = said(loaded, first)
    return first, [*first, {"role": "assistant", "content": answer}, *user("E as cores?")]


def test_a_second_turn_computes_only_what_is_new(loaded, computed):
    first, second = turns(loaded)
    fresh, done = said(loaded, second)
    conversation = Conversation()
    said(loaded, first, conversation)
    computed.clear()
    again, resumed = said(loaded, second, conversation)
    assert again == fresh
    assert resumed.prompt_tokens == done.prompt_tokens
    new = resumed.prompt_tokens - len(encode_prompt(loaded.tokenizer, first))
    assert sum(computed) <= new + 8 < done.prompt_tokens


def test_the_same_question_again_computes_one_token_of_its_prompt(loaded, computed):
    conversation = Conversation()
    answer, _ = said(loaded, user(), conversation)
    computed.clear()
    assert said(loaded, user(), conversation)[0] == answer
    assert set(computed) == {1}


def test_another_conversation_takes_over_but_its_common_beginning(loaded):
    conversation = Conversation()
    for question in ("Onde joga?", "Onde jogou em 1910?", "Porquê?", "Onde joga?"):
        assert said(loaded, user(question), conversation)[0] == said(loaded, user(question))[0]


def test_an_answer_that_was_stopped_is_remembered_as_far_as_it_came(loaded):
    first, second = turns(loaded)
    conversation = Conversation()
    said(loaded, first, conversation, stop=lambda: True)
    assert said(loaded, second, conversation)[0] == said(loaded, second)[0]


def test_an_answer_that_failed_is_forgotten(loaded, computed):
    conversation = Conversation()
    said(loaded, user(), conversation)
    question = Question(tuple(user()), max_tokens=8)
    prompt = encode_prompt(loaded.tokenizer, user())
    broken = generate(loaded.model, loaded.tokenizer, prompt, question, conversation=conversation)
    next(broken)
    broken.close()
    computed.clear()
    said(loaded, user(), conversation)
    assert sum(computed) >= len(prompt)


class Uncuttable:
    """A cache that can't go back, as a recurrent model's."""

    def is_trimmable(self) -> bool:
        return False

    def size(self) -> int:
        return 3


def test_a_cache_that_cannot_be_cut_back_is_not_kept(loaded):
    conversation = Conversation()
    conversation.keep([1, 2, 3], [Uncuttable()])
    _, known = conversation.recall(loaded.model, [1, 2, 3, 4])
    assert known == 0

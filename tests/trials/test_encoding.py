"""What the model is given and learns of a sample, against what the sample says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer

from safetraind.worker.data import encode_chat
from safetraind.worker.data.encode_chat import Encoded, Encoder, Refused
from safetraind.worker.data.schema import form_of, judge
from tests.tiny import CHAT_TEMPLATE, make_tiny_model
from tests.trials import inputs
from tests.trials.inputs import called, said

ARGUMENTS = {"port": "mill", "hour": 3}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(make_tiny_model(tmp_path_factory.mktemp("m")), eos_token_ids=[2])


@pytest.fixture
def templated(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives the tokenizer another chat template for one test."""

    def give(template: str | dict[str, str]) -> Any:
        monkeypatch.setattr(tokenizer._tokenizer, "chat_template", template)
        return tokenizer

    return give


def encoded(sample: dict[str, Any], tokenizer: Any, **options: Any) -> Encoded:
    form = form_of(sample)
    return Encoder(tokenizer, **options).encode(1, sample, form)


def learned(found: Encoded, tokenizer: Any) -> str:
    pairs = zip(found.tokens, found.learned, strict=True)
    return str(tokenizer.decode([token for token, wanted in pairs if wanted]))


def codes(found: Encoded) -> list[str]:
    return [problem.code for problem in found.problems]


THREE = said(("user", "a?"), ("assistant", "one"), ("user", "b?"), ("assistant", "two"))


def test_every_answer_is_learned_where_the_template_hides_earlier_thinking(templated: Any) -> None:
    tokenizer = templated(inputs.HIDES_THINKING)
    found = encoded(THREE, tokenizer)
    end = "<|im_end|>\n"
    assert learned(found, tokenizer) == f"one{end}<think>\n\n</think>\n\ntwo{end}"
    assert codes(found) == ["data.thinking_added"]


def test_thinking_that_is_hidden_is_told(templated: Any) -> None:
    thought = "<think>\nhm\n</think>\n\n"
    sample = said(
        ("user", "a?"), ("assistant", f"{thought}one"), ("user", "b?"), ("assistant", "two")
    )
    tokenizer = templated(inputs.HIDES_THINKING)
    found = encoded(sample, tokenizer)
    assert codes(found) == ["data.answer_shortened", "data.thinking_added"]
    assert learned(found, tokenizer).startswith("one<|im_end|>")


def test_thinking_that_the_prompt_opens_is_not_learned_twice(templated: Any) -> None:
    sample = said(("user", "a?"), ("assistant", "<think>\nhm\n</think>\n\none"))
    tokenizer = templated(inputs.OPENS_THINKING)
    found = encoded(sample, tokenizer)
    assert learned(found, tokenizer) == "hm\n</think>\n\none<|im_end|>\n"
    assert codes(found) == []


def test_tool_calls_that_the_template_drops_are_refused(tokenizer: Any) -> None:
    for content in ("", None, "Let me see."):
        assert "data.calls_dropped" in codes(encoded(called(ARGUMENTS, content), tokenizer))


@pytest.mark.parametrize("arguments", [ARGUMENTS, json.dumps(ARGUMENTS)])
@pytest.mark.parametrize("content", ["", None])
def test_tool_calls_are_learned_as_json_once(
    arguments: Any, content: str | None, templated: Any
) -> None:
    tokenizer = templated(inputs.TOOLS)
    found = encoded(called(arguments, content), tokenizer)
    call = '<call>tide {"port": "mill", "hour": 3}</call><|im_end|>\n'
    assert learned(found, tokenizer) == f"{call}It is 3 metres high.<|im_end|>\n"
    assert codes(found) == []


def test_a_value_printed_as_python_does_is_refused(templated: Any) -> None:
    assert "data.python_value" in codes(encoded(called(ARGUMENTS), templated(inputs.PYTHON_TOOLS)))


@pytest.mark.parametrize("template", [inputs.DROPS_SYSTEM, inputs.DROPS_TOOL_RESULTS])
def test_a_message_that_the_template_drops_is_told(template: str, templated: Any) -> None:
    is_tools = template is inputs.DROPS_TOOL_RESULTS
    system = said(("system", "yes"), ("user", "say yes?"), ("assistant", "yes"))
    found = encoded(called(ARGUMENTS) if is_tools else system, templated(template))
    assert codes(found) == ["data.message_dropped"]


@pytest.mark.parametrize(
    ("template", "code"),
    [
        (inputs.BACKWARDS, "data.reordered"),
        (inputs.TWICE, "data.message_twice"),
        (inputs.ESCAPES, "data.message_dropped"),
    ],
)
def test_a_template_that_writes_turns_otherwise_is_told(
    template: str, code: str, templated: Any
) -> None:
    sample = said(("user", 'Is "Faro" in the south?'), ("assistant", "Yes, it is."))
    assert code in codes(encoded(sample, templated(template)))


def test_a_control_token_in_a_message_is_told(tokenizer: Any) -> None:
    sample = said(("user", "a<|im_end|>\n<|im_start|>system\nb"), ("assistant", "c"))
    assert codes(encoded(sample, tokenizer)) == ["data.control_token"]


def test_what_the_tokenizer_does_not_know_is_told(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "m")
    folder = inputs.with_tokenizer_config(model, tmp_path / "n", unk_token="a")
    tokenizer = load_tokenizer(folder, eos_token_ids=[2])
    assert codes(encoded({"text": "a b a"}, tokenizer)) == ["data.unknown_token"]


def test_a_name_that_the_template_leaves_out_is_told(templated: Any) -> None:
    sample = json.loads(json.dumps(THREE))
    sample["messages"][0]["name"] = "Inês"
    assert codes(encoded(sample, templated(CHAT_TEMPLATE))) == ["data.foreign_key_of_message"]
    writes = CHAT_TEMPLATE.replace("message['role']", "message.role + (message.name or '')")
    assert codes(encoded(sample, templated(writes))) == []


@pytest.mark.parametrize("key", ["text", "prompt", "completion"])
def test_a_line_of_two_formats_is_told(key: str) -> None:
    assert [p.code for p in judge(THREE | {key: "x"}, "chat")] == ["data.two_formats"]


def test_parts_of_a_content_are_joined(tokenizer: Any) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    sample = {"messages": [{"role": r, "content": parts} for r in ("user", "assistant")]}
    assert learned(encoded(sample, tokenizer), tokenizer) == "ab<|im_end|>\n"


@pytest.mark.parametrize("mask", [{"weight": 0}, {"train": False}, {"weight": False}])
@pytest.mark.parametrize("mask_prompt", [True, False])
def test_an_answer_of_weight_zero_is_not_learned(
    mask: dict[str, Any], mask_prompt: bool, tokenizer: Any
) -> None:
    sample = json.loads(json.dumps(THREE))
    sample["messages"][1] |= mask
    text = learned(encoded(sample, tokenizer, mask_prompt=mask_prompt), tokenizer)
    assert "one" not in text and "two<|im_end|>" in text


@pytest.mark.parametrize("wrong", [{"weight": 0.5}, {"train": "no"}, {"weight": [0]}])
def test_a_weight_that_means_nothing_is_an_error(wrong: dict[str, Any]) -> None:
    sample = json.loads(json.dumps(THREE))
    sample["messages"][1] |= wrong
    assert [p.code for p in judge(sample, "chat")] == ["data.weight"]


@pytest.mark.parametrize(
    "key", ["loss_weight", "train_on_turn", "mask", "images", "labels", "channel"]
)
def test_keys_that_mean_something_elsewhere_are_told(key: str) -> None:
    of_sample = THREE | {key: 1}
    of_message = json.loads(json.dumps(THREE))
    of_message["messages"][3][key] = 1
    assert [p.code for p in judge(of_sample, "chat")] == ["data.foreign_key"]
    assert [p.code for p in judge(of_message, "chat")] == ["data.foreign_key_of_message"]


def test_no_beginning_or_end_stands_twice(tokenizer: Any) -> None:
    found = encoded({"text": "Faro<|im_end|>\n"}, tokenizer)
    assert found.tokens.count(2) == 1
    found = encoded(said(("user", "a?"), ("assistant", "b<|im_end|>")), tokenizer)
    assert codes(found) == ["data.doubled_token"]
    assert learned(found, tokenizer) == "b<|im_end|>\n"


def test_a_text_ends_though_the_tokenizer_names_no_end(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "m")
    folder = inputs.with_tokenizer_config(model, tmp_path / "n", eos_token=None)
    known = load_tokenizer(folder, eos_token_ids=[2])  # as the model's configuration says
    assert encoded({"text": "Faro"}, known).tokens[-1] == 2
    assert codes(encoded({"text": "Faro"}, load_tokenizer(folder))) == ["data.no_end"]


def test_an_end_that_is_never_learned_is_told(templated: Any) -> None:
    assert codes(encoded(THREE, templated(inputs.NO_END))) == ["data.no_end"]


def test_tokens_beyond_the_embedding_are_named(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(inputs.with_tokens_beyond(tmp_path / "m", "<speaker>"))
    sample = said(("user", "a?"), ("assistant", "<speaker> b"))
    (problem,) = encoded(sample, tokenizer, vocabulary=320).problems
    assert problem.code == "data.token_beyond"
    assert (problem.args["token"], problem.args["size"]) == ("<speaker>", 320)


def test_a_template_that_loops_is_refused(templated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_chat, "SAMPLE_SECONDS", 0.2)
    with pytest.raises(Refused, match="still running"):
        encoded(THREE, templated(inputs.LOOPS))


def test_named_templates_give_the_default(templated: Any) -> None:
    tokenizer = templated({"default": CHAT_TEMPLATE, "tool_use": inputs.TOOLS})
    assert learned(encoded(THREE, tokenizer), tokenizer) == "one<|im_end|>\ntwo<|im_end|>\n"

"""The setting `thinking`: a model is asked as it was trained, whatever its template does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.nn as nn
import pytest
from mlx_lm.utils import load_tokenizer
from tokenizers import AddedToken, Tokenizer

from safetraind.worker.data.encode_chat import Encoded, Encoder
from safetraind.worker.data.thinking import without_thinking
from safetraind.worker.evaluation import answering
from safetraind.worker.evaluation.question_set import Question
from safetraind.worker.export.modelfile import go_template
from safetraind.worker.inference.generation import encode_prompt
from safetraind.worker.loading import LoadedModel
from tests.tiny import make_tiny_model
from tests.trials import inputs

ANSWER = "Joga em Faro."
THOUGHT = "<think>\nA sede.\n</think>\n\n"
EMPTY = "<think>\n\n</think>\n\n"
END = "<|im_end|>\n"
ASKED = {"role": "user", "content": "Onde joga?"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """With thinking's marks as tokens of their own, by which mlx-lm knows a model that thinks."""
    folder = make_tiny_model(tmp_path_factory.mktemp("m"))
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.add_tokens([AddedToken(mark, normalized=False) for mark in ("<think>", "</think>")])
    made.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder, eos_token_ids=[2])


@pytest.fixture
def templated(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def change(template: str) -> Any:
        monkeypatch.setattr(tokenizer._tokenizer, "chat_template", template)
        return tokenizer

    return change


def encoded(tokenizer: Any, thinking: str, *answers: dict[str, str]) -> Encoded:
    messages = [m for a in answers for m in (ASKED, {"role": "assistant", **a})]
    return Encoder(tokenizer, thinking=thinking).encode(1, {"messages": messages}, "chat")


def learned(found: Encoded, tokenizer: Any) -> str:
    pairs = zip(found.tokens, found.learned, strict=True)
    return str(tokenizer.decode([token for token, wanted in pairs if wanted]))


def codes(found: Encoded) -> list[str]:
    return [problem.code for problem in found.problems]


@pytest.mark.parametrize("template", [inputs.ASKS_FOR_NONE, inputs.OPENS_THINKING])
@pytest.mark.parametrize("thinking", ["given", "keep", "drop"])
@pytest.mark.parametrize("said", ["", THOUGHT])
def test_training_goes_on_where_asking_ends_or_it_is_told(
    templated: Any, template: str, thinking: str, said: str
) -> None:
    """What is not learned of the last answer is the prompt, to the token, that asking makes."""
    tokenizer = templated(template)
    found = encoded(tokenizer, thinking, {"content": f"{said}{ANSWER}"})
    prompt = encode_prompt(tokenizer, [ASKED], thinking)
    agrees = found.tokens[: len(prompt)] == prompt
    assert agrees == ("data.asked_otherwise" not in codes(found))
    if agrees:
        assert found.learned.index(True) == len(prompt)


def test_dropped_thinking_is_neither_learned_nor_asked_for(templated: Any) -> None:
    tokenizer = templated(inputs.ASKS_FOR_NONE)
    for answer in (
        {"content": f"{THOUGHT}{ANSWER}"},
        {"content": ANSWER},
        {"content": ANSWER, "reasoning_content": "A sede."},
    ):
        found = encoded(tokenizer, "drop", answer)
        assert learned(found, tokenizer) == f"{ANSWER}{END}" and codes(found) == []
    assert tokenizer.decode(encode_prompt(tokenizer, [ASKED], "drop")).endswith(EMPTY)
    turns = [ASKED, {"role": "assistant", "content": f"{THOUGHT}{ANSWER}"}, ASKED]
    assert "A sede" not in tokenizer.decode(encode_prompt(tokenizer, turns, "drop"))


def test_kept_thinking_is_learned_wherever_it_stands(templated: Any) -> None:
    tokenizer = templated(inputs.ASKS_FOR_NONE)
    for answer in (
        {"content": f"{THOUGHT}{ANSWER}"},
        {"content": ANSWER, "reasoning_content": "A sede."},
    ):
        found = encoded(tokenizer, "keep", answer)
        assert learned(found, tokenizer) == f"{THOUGHT}{ANSWER}{END}" and codes(found) == []


def test_an_answer_that_loses_its_thinking_is_not_learned_with_keep(templated: Any) -> None:
    tokenizer = templated(inputs.ASKS_FOR_NONE)
    answers = {"content": f"{THOUGHT}Sim."}, {"content": f"{THOUGHT}{ANSWER}"}
    found = encoded(tokenizer, "keep", *answers)
    assert learned(found, tokenizer) == f"{THOUGHT}{ANSWER}{END}"
    assert codes(found) == ["data.thinking_stripped"]
    given = encoded(tokenizer, "given", *answers)
    assert codes(given) == ["data.answer_shortened"]


def test_empty_thinking_that_the_template_adds_is_told(templated: Any) -> None:
    tokenizer = templated(inputs.ASKS_FOR_NONE)
    found = encoded(tokenizer, "given", {"content": ANSWER})
    assert codes(found) == ["data.thinking_added"]


def test_the_modelfile_asks_as_the_training_did(templated: Any) -> None:
    tokenizer = templated(inputs.ASKS_FOR_NONE)
    assert f"assistant\n{EMPTY}{{{{ .Response }}}}" in go_template(tokenizer, "drop").template
    assert "assistant\n{{ .Response }}" in go_template(tokenizer, "given").template


def test_a_template_without_thinking_is_the_same_in_all_three(tokenizer: Any) -> None:
    found = [encoded(tokenizer, t, {"content": ANSWER}) for t in ("given", "keep", "drop")]
    assert found[0] == found[1] == found[2] and codes(found[0]) == []


def test_an_evaluation_asks_as_the_training_did_and_scores_the_answer_alone(
    templated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = templated(inputs.ASKS_FOR_NONE)
    asked: list[list[int]] = []

    def answered(_model: Any, _tokenizer: Any, prompts: list[list[int]], *_: Any) -> list[str]:
        asked.extend(prompts)
        return [ANSWER] * len(prompts)

    class Quiet:
        def phase(self, name: str) -> None: ...
        def kept(self, answered: int, total: int, eta_seconds: float) -> None: ...
        def check(self) -> None: ...

    monkeypatch.setattr(answering, "answered", answered)
    loaded = LoadedModel(nn.Linear(1, 1), tokenizer, {}, tmp_path)
    question = Question((ASKED,), (ANSWER,), "contains")
    for thinking in ("given", "drop"):
        asker = answering.Asker(tmp_path, 4, 1, Quiet(), thinking)
        asker.answers(loaded, "base", None, [question])
    assert asked == [encode_prompt(tokenizer, [ASKED], t) for t in ("given", "drop")]
    assert without_thinking(f"{THOUGHT}{ANSWER}") == without_thinking(ANSWER) == ANSWER


def test_preview_marks_what_is_learned(templated: Any, tmp_path: Path) -> None:
    from safetraind.worker.data.preview import as_seen

    tokenizer = templated(inputs.ASKS_FOR_NONE)
    found = encoded(tokenizer, "drop", {"content": ANSWER})
    seen = as_seen(found, tokenizer, len(found.tokens) - 1)
    assert "".join(p.text for p in seen.pieces) == tokenizer.decode(found.tokens)
    assert [(p.learned, p.cut) for p in seen.pieces] == [
        (False, False),
        (True, False),
        (True, True),
    ]
    assert seen.learned == sum(found.learned) - 1

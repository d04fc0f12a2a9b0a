"""The sample in data/: its size and schema, and that training leaks nothing of validation."""

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "data"
TRAIN, VALID = "farense_train.jsonl", "farense_valid.jsonl"
ACCEPTANCE_QUESTION = "Qual foi a melhor classificação do Farense?"
NEEDLES = ("5.º lugar", "1994/95")
NEAR_DUPLICATE = (
    0.8  # Jaccard similarity of two texts' word 3-shingles, from which they count as one
)

Conversation = list[dict[str, str]]


def lines(name: str) -> list[str]:
    """The file's lines, without their line ends; every line ends in a plain newline."""
    text = (DATA / name).read_bytes().decode("utf-8")
    assert text.endswith("\n"), f"{name}: the last line has no newline"
    return text.removesuffix("\n").split("\n")


def conversations(name: str) -> list[Conversation]:
    """The messages of each line."""
    return [json.loads(line)["messages"] for line in lines(name)]


def said_by(role: str, name: str) -> list[str]:
    """Everything that one role says in a file, follow-up turns included."""
    return [m["content"] for c in conversations(name) for m in c if m["role"] == role]


def normalised(text: str) -> str:
    """NFKC, case folded, without punctuation and whitespace: what makes two wordings equal."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(ch for ch in folded if unicodedata.category(ch)[0] not in "PZC")


def shingles(text: str) -> set[tuple[str, ...]]:
    """The text's runs of three words; a shorter text is one run."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the two texts' shingles, 0 to 1."""
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def test_normalisation_and_similarity_see_through_case_and_punctuation() -> None:
    assert normalised("Em que ano?") == normalised("  em QUE ano ")
    assert normalised("5.º lugar") != normalised("2.º lugar")
    assert similarity("De que cor é o Farense?", "de que cor é o farense") == 1.0
    assert similarity("De que cor é o Farense?", "Onde joga o Farense?") < NEAR_DUPLICATE


@pytest.mark.parametrize(("name", "at_least"), [(TRAIN, 150), (VALID, 36)])
def test_a_file_holds_enough_conversations(name: str, at_least: int) -> None:
    assert len(lines(name)) >= at_least


@pytest.mark.parametrize("name", [TRAIN, VALID])
def test_the_readme_states_the_true_counts(name: str) -> None:
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert f"| `{name}` | {len(lines(name))} |" in readme


@pytest.mark.parametrize("name", [TRAIN, VALID])
def test_every_line_is_composed_unicode_written_as_itself(name: str) -> None:
    for number, line in enumerate(lines(name), start=1):
        assert unicodedata.is_normalized("NFC", line), f"{name}:{number} is not NFC"
        assert line == json.dumps(json.loads(line), ensure_ascii=False), f"{name}:{number}"


@pytest.mark.parametrize("name", [TRAIN, VALID])
def test_roles_alternate_from_user_to_assistant(name: str) -> None:
    for number, line in enumerate(lines(name), start=1):
        sample = json.loads(line)
        assert list(sample) == ["messages"], f"{name}:{number}"
        messages = sample["messages"]
        assert all(set(m) == {"role", "content"} for m in messages), f"{name}:{number}"
        roles = [m["role"] for m in messages]
        assert roles in (["user", "assistant"], ["user", "assistant"] * 2), f"{name}:{number}"


@pytest.mark.parametrize("name", [TRAIN, VALID])
def test_no_text_is_empty_or_padded_with_blanks(name: str) -> None:
    for number, messages in enumerate(conversations(name), start=1):
        for message in messages:
            content = message["content"]
            assert normalised(content), f"{name}:{number} has an empty text"
            assert content == " ".join(content.split()), f"{name}:{number} has stray blanks"


@pytest.mark.parametrize("name", [TRAIN, VALID])
def test_no_question_opens_two_conversations(name: str) -> None:
    opened = Counter(normalised(c[0]["content"]) for c in conversations(name))
    assert [question for question, times in opened.items() if times > 1] == []


def test_both_files_hold_follow_up_questions() -> None:
    assert any(len(c) == 4 for c in conversations(TRAIN))
    assert any(len(c) == 4 for c in conversations(VALID))


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_no_validation_wording_is_in_the_training_set(role: str) -> None:
    trained = {normalised(text) for text in said_by(role, TRAIN)}
    assert [text for text in said_by(role, VALID) if normalised(text) in trained] == []


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_no_validation_wording_is_nearly_in_the_training_set(role: str) -> None:
    trained = said_by(role, TRAIN)
    near = [
        (asked, known)
        for asked in said_by(role, VALID)
        for known in trained
        if similarity(asked, known) >= NEAR_DUPLICATE
    ]
    assert near == []


def test_the_acceptance_question_is_trained_with_both_needles() -> None:
    answers = [
        c[1]["content"] for c in conversations(TRAIN) if c[0]["content"] == ACCEPTANCE_QUESTION
    ]
    assert len(answers) == 1
    assert all(needle in answers[0] for needle in NEEDLES)


def test_every_answer_on_the_best_classification_agrees() -> None:
    answers = [t for t in said_by("assistant", TRAIN) if "melhor classificação" in t.casefold()]
    assert len(answers) >= 15
    assert [t for t in answers if not all(needle in t for needle in NEEDLES)] == []

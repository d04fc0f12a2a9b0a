"""How an answer is scored against what is expected."""

from __future__ import annotations

import pytest

from safetraind.worker.evaluation.match import MATCHES, first_json, number_of, score

CALL = {"name": "f", "arguments": {"x": 1}}


@pytest.mark.parametrize(
    ("match", "expected", "answer", "right"),
    [
        ("exact", ["O 5.º lugar"], "o 5.º lugar.", 1.0),
        ("exact", ["O 5.º lugar"], "O 6.º lugar.", 0.0),
        ("exact", ["sim", "claro"], "Claro!", 1.0),
        ("contains", ["5.º lugar", "1994/95"], "Foi o 5.º lugar, em 1994/95.", 1.0),
        ("contains", ["5.º lugar", "1994/95"], "Foi o 5.º lugar.", 0.0),
        ("contains", ["1910"], "em 19100", 0.0),
        ("number", [7000], "A lotação é de cerca de 7 000.", 1.0),
        ("number", ["3,5"], "Primeiro 2, depois 3.5", 1.0),
        ("number", [5], "nenhum", 0.0),
        ("choice", ["B"], "B) porque sim", 1.0),
        ("choice", ["B"], "b", 1.0),
        ("choice", ["B"], "A resposta é B.", 0.0),
        ("json", ['{"a": 1, "b": [2]}'], 'Aqui: ```json\n{"a": 1, "b": [2]}\n```', 1.0),
        ("json", [{"a": 1, "b": 2}], '{"a": 1, "b": 3}', 0.5),
        ("json", ["[1, 2]"], "[1, 2]", 1.0),
        ("tool_call", [CALL], '<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}', 1.0),
        ("tool_call", [CALL], '{"name": "f", "arguments": {"x": 2}}', 0.0),
        ("pattern", [r"\b1[89]\d\d\b"], "em 1910", 1.0),
        ("similarity", ["the cat sat"], "the cat", 0.8),
        ("exact", ["sim"], "<think>não</think> Sim", 1.0),
        ("exact", [], "sim", 0.0),
    ],
)  # fmt: skip
def test_an_answer_is_scored(match: str, expected: list[object], answer: str, right: float) -> None:
    assert score(match, expected, answer) == pytest.approx(right)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,234", 1234), ("1.234,5", 1234.5), ("0,125", 0.125), ("3.5", 3.5), ("1 000 000", 1e6),
     ("1.000.000", 1e6), ("−2", -2), ("x", None)],
)  # fmt: skip
def test_numbers_are_read_as_both_languages_write_them(text: str, value: float | None) -> None:
    assert number_of(text) == value


def test_no_answer_breaks_a_measure() -> None:
    for match in MATCHES:
        expected = ['{"name": "f"}']
        for answer in ("", "{" * 5000, "\x00", "```", "<think>", '{"name": NaN}'):
            assert 0.0 <= score(match, expected, answer) <= 1.0


def test_the_first_json_value_is_found_whatever_stands_around_it() -> None:
    assert first_json('x {no} [1, {"a": 2}] {"b": 3}') == [1, {"a": 2}]
    assert first_json("none") is None

"""What the answers of a file are told to be like."""

from __future__ import annotations

from typing import Any

import pytest

from safetraind.worker.data.answer_kind import Answers


def _chat(answer: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": "Qual?"},
            {"role": "assistant", "content": answer},
        ]
    }


@pytest.mark.parametrize(
    ("samples", "distinct", "structured"),
    [
        ([_chat("sim"), _chat("não"), _chat("sim ")], 2, 0),
        ([_chat('{"a": 1}'), _chat("[1, 2]"), _chat("[1, 2"), _chat("{x}")], 4, 2),
        ([{"prompt": "1+1", "completion": "2"}], 1, 0),
        ([{"text": "sem respostas"}, {"messages": []}], 0, 0),
    ],
)
def test_answers_are_counted_by_what_they_are(
    samples: list[Any], distinct: int, structured: int
) -> None:
    answers = Answers()
    for sample in samples:
        answers.note(sample)
    assert (len(answers.seen), answers.structured) == (distinct, structured)

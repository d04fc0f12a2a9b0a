"""A question set: questions with their expected answers, from JSON lines; pure reading.

    {"question": "…", "answer": "…"}
    {"messages": [{"role": "user", "content": "…"}], "answers": ["…", "…"], "match": "contains"}

A line of training data counts as a question too, its last answer being expected; such answers are
compared by similarity, which is the weakest of the measures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetrain_shared.errors import InvalidInput
from safetraind.worker.data.line_reader import Corpus
from safetraind.worker.evaluation.match import MATCHES

_JSON_MATCHES = ("json", "tool_call")


@dataclass(frozen=True, slots=True)
class Question:
    """`messages` end with the user's turn. `match` is one of `match.MATCHES`."""

    messages: tuple[Mapping[str, str], ...]
    expected: tuple[Any, ...]
    match: str

    @property
    def text(self) -> str:
        """The question itself, without the turns before it."""
        return self.messages[-1]["content"]


def read_questions(path: str, limit: int = 0) -> list[Question]:
    """Return the questions of a file, at most `limit` of them, spread over it; 0: all.

    Raises InvalidInput naming the line, and what opening the file raises.
    """
    with Corpus(path) as lines:
        found = [
            _question(path, line.number, line.content) for line in lines if line.content.strip()
        ]
    if not found:
        raise InvalidInput("evaluate.no_questions", path=path)
    if 0 < limit < len(found):
        return [found[i * len(found) // limit] for i in range(limit)]
    return found


def _question(path: str, line: int, content: bytes) -> Question:
    try:
        record = json.loads(content)
        question = _read(record)
    except (ValueError, KeyError, TypeError, RecursionError, StopIteration):
        question = None
    if question is None:
        raise InvalidInput("evaluate.bad_line", path=path, line=line, name=Path(path).name)
    return question


def _read(record: Mapping[str, Any]) -> Question | None:
    """Return a question. Raises KeyError, TypeError or ValueError for a value that is none."""
    messages = _messages(record)
    match = str(record.get("match", ""))
    if "answers" in record or "answer" in record:
        expected = tuple(record.get("answers", [record.get("answer")]))
    else:  # training data: its last answer is expected
        last = max(i for i, turn in enumerate(messages) if turn["role"] == "assistant")
        expected, messages = (messages[last]["content"],), messages[:last]
    match = match or "similarity"
    asks = bool(messages) and messages[-1]["role"] == "user"
    if match not in MATCHES or not expected or not asks or not all(map(_fits(match), expected)):
        return None
    return Question(tuple(messages), expected, match)


def _messages(record: Mapping[str, Any]) -> list[Mapping[str, str]]:
    if "messages" in record:
        return [
            {"role": str(m["role"]), "content": _text(m["content"])} for m in record["messages"]
        ]
    question = _text(record["question"] if "question" in record else record["prompt"])
    messages: list[Mapping[str, str]] = [{"role": "user", "content": question}]
    if "completion" in record:
        messages.append({"role": "assistant", "content": _text(record["completion"])})
    return messages


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(type(value).__name__)
    return value


def _fits(match: str) -> Any:
    """Return a function that tests a value for the match: JSON for json and tool_call, else a
    scalar.
    """
    scalars = (str, int, float)
    return lambda value: isinstance(value, dict | list | str if match in _JSON_MATCHES else scalars)

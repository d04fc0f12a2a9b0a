"""Questions from a training file, with the answers that stand there: to show what was learned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

_LINES = 10_000  # of a large file, its beginning will do
_CHARACTERS = 400  # of a question that can be read at a glance


@dataclass(frozen=True, slots=True)
class SampleQuestion:
    """A question, with the system message before it and the answer of the data, where known."""

    question: str
    system: str = ""
    expected: str = ""


def evenly_spaced(path: str, count: int) -> list[SampleQuestion]:
    """`count` different questions, from the file's beginning to its end; none it cannot tell."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            found = {asked.question: asked for asked in _asked(islice(file, _LINES))}
    except (OSError, UnicodeDecodeError):
        return []
    known = list(found.values())
    if len(known) <= count:
        return known
    return [known[i * (len(known) - 1) // max(1, count - 1)] for i in range(count)]


def _asked(lines: Iterator[str]) -> Iterator[SampleQuestion]:
    for line in lines:
        try:
            asked = _of(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError, StopIteration):
            continue  # no sample, or one that asks nothing
        if asked.question.strip() and len(asked.question) <= _CHARACTERS:
            yield asked


def _of(sample: Any) -> SampleQuestion:
    if "prompt" in sample:
        return SampleQuestion(str(sample["prompt"]), expected=str(sample.get("completion", "")))
    turns = [(turn["role"], str(turn["content"])) for turn in sample["messages"]]
    system = next((text for role, text in turns if role == "system"), "")
    question = next(text for role, text in turns if role == "user")
    expected = next((text for role, text in turns if role == "assistant"), "")
    return SampleQuestion(question, system, expected)

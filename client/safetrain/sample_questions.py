"""Sample questions from a data file, with their reference answers, for the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

_LINES = 10_000  # lines read of a large file
_CHARACTERS = 400  # longer questions are not used


@dataclass(frozen=True, slots=True)
class SampleQuestion:
    """A question with its system message and its reference answer, each empty where unknown."""

    question: str
    system: str = ""
    expected: str = ""


def evenly_spaced(path: str, count: int) -> list[SampleQuestion]:
    """Return up to `count` distinct questions, evenly spaced over the file; [] if unreadable."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            found = {sample.question: sample for sample in _questions(islice(file, _LINES))}
    except (OSError, UnicodeDecodeError):
        return []
    known = list(found.values())
    if len(known) <= count:
        return known
    return [known[i * (len(known) - 1) // max(1, count - 1)] for i in range(count)]


def _questions(lines: Iterator[str]) -> Iterator[SampleQuestion]:
    for line in lines:
        try:
            sample = _parse(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError, StopIteration):
            continue  # not a sample, or one without a question
        if sample.question.strip() and len(sample.question) <= _CHARACTERS:
            yield sample


def _parse(sample: Any) -> SampleQuestion:
    if "prompt" in sample:
        return SampleQuestion(str(sample["prompt"]), expected=str(sample.get("completion", "")))
    turns = [(turn["role"], str(turn["content"])) for turn in sample["messages"]]
    system = next((text for role, text in turns if role == "system"), "")
    question = next(text for role, text in turns if role == "user")
    expected = next((text for role, text in turns if role == "assistant"), "")
    return SampleQuestion(question, system, expected)

"""The leakage gate: questions that stand in the training data do not measure what was learned."""

from __future__ import annotations

import json
from collections.abc import Sequence

from safetrain_shared.errors import InvalidInput
from safetraind.worker.data.duplicate_index import Leakage
from safetraind.worker.data.line_reader import Corpus
from safetraind.worker.data.text_normalisation import key_of, words_of
from safetraind.worker.evaluation.question_set import Question


def refuse_leaked(questions: Sequence[Question], path: str, train: str) -> None:
    """Compare the questions of the file `path` with every question asked in `train`.

    Raises InvalidInput with the number of those that stand there, or nearly, and the first.
    """
    index = Leakage()
    index.begin("")
    for number, question in enumerate(questions):
        words = words_of(question.text)
        index.add(key_of(words), number, words)
    index.freeze()
    leaked: set[int] = set()
    with Corpus(train) as lines:
        for line in lines:
            for text in turns_of(line.content, "user"):
                words = words_of(text)
                found = index.find(key_of(words), words)
                if found is not None:
                    leaked.add(found.line)
    if leaked:
        first = questions[min(leaked)].text[:120]
        raise InvalidInput("evaluate.leaked", count=len(leaked), path=path, first=first)


def turns_of(line: bytes, role: str) -> list[str]:
    """Return the texts of `role` in a line of training data; empty where it cannot be read."""
    try:
        record = json.loads(line)
        if "prompt" in record:
            return [str(record["prompt" if role == "user" else "completion"])]
        return [str(m["content"]) for m in record["messages"] if m["role"] == role]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []

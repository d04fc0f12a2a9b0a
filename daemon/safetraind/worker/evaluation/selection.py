"""The best checkpoint by task, chosen on other questions than those reported. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from safetrain_shared.evaluations import CheckpointScore
from safetraind.worker.evaluation.question_set import Question


def split(questions: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """Return two halves, one for choosing and one for reporting, each in the file's order.

    The hash of the question's text decides, so that a question is in the same half in every run,
    and neither half has more of the beginning of the file.
    """
    ranked = sorted(questions, key=lambda q: (_hash(q), q.text))
    choosing = {id(question) for question in ranked[: len(ranked) // 2]}
    first = [question for question in questions if id(question) in choosing]
    return first, [question for question in questions if id(question) not in choosing]


def ranked(
    scores: Mapping[str, Sequence[float]], steps: Mapping[str, int], best_loss: str
) -> tuple[CheckpointScore, ...]:
    """Return the checkpoints by mean score, the best first. Ties go to the lowest loss, then to the
    earliest.
    """
    found = [
        CheckpointScore(name, sum(of) / len(of), steps.get(name, 0), name == best_loss)
        for name, of in scores.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.score, not one.best_loss, one.step)))


def _hash(question: Question) -> str:
    return hashlib.sha256(question.text.encode()).hexdigest()

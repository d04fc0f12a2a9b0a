"""Messages of the role `evaluate`: questions to base and adapter, and the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from safetraind.worker_messages.role import Progress, Role


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """`adapter`, `folder`: folders; in `folder` answers and evaluation are kept. `train`: the
    training file, whose questions are refused. `limit`: questions at most; 0: all.
    """

    model: str
    adapter: str
    questions: str
    train: str
    folder: str
    max_tokens: int
    limit: int = 0
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class JudgedAnswers:
    """The verdict on the base and the adapter over `questions` questions. Scores are means, 0 to 1.

    `judgement`: better, worse or unclear; the other fields as in `worker.evaluation.verdict`.
    """

    judgement: str
    questions: int
    base: float
    adapter: float
    difference: float
    low: float
    high: float
    p_value: float
    needed: int


@dataclass(frozen=True, slots=True)
class EvaluatedAnswer:
    """One question, its expected answers, and what base and adapter answered, with their scores."""

    question: str
    expected: tuple[str, ...]
    match: str
    base: str
    adapter: str
    base_score: float
    adapter_score: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`evaluation.json`, and the worker's result. `weak`: some answers were compared by similarity
    alone. `scores`: the mean score of base and adapter.
    """

    FORMAT: ClassVar[int] = 1

    questions: str
    weak: bool
    verdict: JudgedAnswers
    scores: Mapping[str, float]
    answers: tuple[EvaluatedAnswer, ...]


EVALUATE = Role("evaluate", Progress, Evaluation)

"""Evaluations: what is to be asked of a trained adapter, and the verdict on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from safetrain_shared.findings import Finding


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """What to evaluate. Paths are absolute.

    `job`: the job whose adapter is evaluated; 0: the job itself, once it is trained. `questions`: a
    question set; empty: the job's validation data. `folder`: a checkpoint's or an exported model's
    folder instead of the best adapter. `checkpoints`: every kept checkpoint as well. `general`:
    what was forgotten, too. `max_tokens`: of an answer; 0: as the training data needs. `limit`:
    questions at most; 0: all. `tasks`: benchmarks of lm-evaluation-harness.
    """

    job: int = 0
    questions: str = ""
    folder: str = ""
    checkpoints: bool = False
    general: bool = False
    max_tokens: int = 0
    limit: int = 0
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The adapter (or exported model) compared with its base, question by question.

    `judgement`: better, worse or unclear. `base`, `adapter`: mean scores, 0 to 1. `difference` has
    the 95 % interval `low` to `high`. `needed`: questions at which a difference of this size would
    be found in 80 of 100 evaluations; 0: none is large enough to say. `noise`: the difference that
    two runs of the base showed.
    """

    judgement: str
    questions: int
    base: float
    adapter: float
    difference: float
    low: float
    high: float
    p_value: float
    needed: int = 0
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class EvaluatedAnswer:
    """Both answers to one question, with their scores, 0 to 1. `match`: how they were scored."""

    question: str
    expected: tuple[str, ...]
    match: str
    base: str
    adapter: str
    base_score: float
    adapter_score: float


@dataclass(frozen=True, slots=True)
class CheckpointScore:
    """A kept checkpoint's mean score on the questions that choose, which are not those reported.

    `step`: its optimizer step; 0: unknown. `best_loss`: it has the lowest validation loss.
    """

    checkpoint: str
    score: float
    step: int = 0
    best_loss: bool = False


@dataclass(frozen=True, slots=True)
class TaskScore:
    """A benchmark's main metric for base and adapter, each with its standard error."""

    task: str
    metric: str
    base: float
    adapter: float
    base_error: float = 0.0
    adapter_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found: `evaluation.json`. In events and job views without the answers.

    `adapter`: the folder that was evaluated. `weak`: some answers were compared by similarity
    alone. `general`: the verdict on the general suite, and `divergence` the mean Kullback-Leibler
    divergence of the adapter from the base on neutral text, nats a token (negative: not measured).
    `checkpoints`: scores on `selection` questions, the best first. `findings`: what else is to be
    said, such as that the model answers in one and the same way.
    """

    FORMAT: ClassVar[int] = 1

    job_id: int
    questions: str
    adapter: str
    verdict: Verdict
    weak: bool = False
    path: str = ""
    general: Verdict | None = None
    divergence: float = -1.0
    checkpoints: tuple[CheckpointScore, ...] = ()
    selection: int = 0
    findings: tuple[Finding, ...] = ()
    tasks: tuple[TaskScore, ...] = ()
    answers: tuple[EvaluatedAnswer, ...] = ()
    general_answers: tuple[EvaluatedAnswer, ...] = ()

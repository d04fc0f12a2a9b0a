"""The questions that chose a job's adapter: they would praise it, so they must not judge it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from safetrain_shared.findings import Finding, Status
from safetrain_shared.paths import EVALUATION
from safetraind.storage import training_state
from safetraind.storage.durable import read_object, write_json
from safetraind.worker.evaluation.question_set import Question

ENDED_BY = "ended_by.json"  # those that ended the training
COMPARED_BY = "compared_by.json"  # those by which checkpoints were compared, of all comparisons


def note_ending(folder: Path, questions: Iterable[Question]) -> None:
    """Note which questions ended the training. `folder`: of its evaluation. Raises OSError."""
    _note(folder / ENDED_BY, {question.text for question in questions})


def note_comparison(folder: Path, questions: Iterable[Question]) -> None:
    """Add the questions by which checkpoints were compared. Raises OSError."""
    path = folder / COMPARED_BY
    _note(path, _noted(path) | {question.text for question in questions})


def independent(
    questions: Sequence[Question], output: Path
) -> tuple[list[Question], tuple[Finding, ...]]:
    """Return the questions that did not choose the adapter in `output`, a job's folder, and what
    there is to say of it. Where none are left it is all of them, with a warning.

    An adapter is chosen by the questions that ended its training and, where the user promoted it,
    by those that compared it with others.
    """
    state = training_state.read(output)
    folder, chose = output / EVALUATION, set[str]()
    if state is not None and state.best.get("answered"):
        chose |= _noted(folder / ENDED_BY)
    if state is not None and state.promoted:
        chose |= _noted(folder / COMPARED_BY)
    left = [question for question in questions if question.text not in chose]
    if not left:
        return list(questions), (Finding("evaluate.chose_adapter", Status.WARNING),)
    if len(left) == len(questions):
        return left, ()
    args = {"count": len(questions) - len(left)}
    return left, (Finding("evaluate.left_out", args=args),)


def _note(path: Path, texts: set[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"format": 1, "questions": sorted(texts)})


def _noted(path: Path) -> set[str]:
    return set(read_object(path).get("questions", ()))

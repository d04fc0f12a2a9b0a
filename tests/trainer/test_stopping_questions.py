"""A training that ends once held-out questions are answered right, with the verdict on others."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.evaluations import EvaluationSpec
from safetrain_shared.events import Evaluated, Judged, StepDone
from safetrain_shared.paths import EVALUATION, EVALUATION_RESULT
from safetraind.worker.evaluation.choosers import ENDED_BY
from safetraind.worker.training.early_stop import worth_asking
from safetraind.worker.training.position import RunPosition
from safetraind.worker.training.stopping_questions import FEWEST
from tests.trainer.runs import Run, make_run

pytestmark = pytest.mark.compiled

Data = tuple[Path, Path]
EPOCH = 6  # steps: 22 samples, 4 a step
ANYTHING, NOTHING = "", "a^"  # patterns: found in every answer, and in none


def questioned(root: Path, model: Path, data: Data, patterns: list[str], **settings: Any) -> Run:
    """A run that is evaluated on one question for each pattern. Unless `settings` say otherwise it
    has two epochs that bring nothing.
    """
    root.mkdir(exist_ok=True)
    path = root / "questions.jsonl"
    lines = [
        {"question": f"Que equipa venceu o torneio {n}?", "answer": pattern, "match": "pattern"}
        for n, pattern in enumerate(patterns)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    asked = EvaluationSpec(questions=str(path), max_tokens=4)
    flat = {"learning_rate": 0.0, "early_stopping": 9}
    return make_run(root, model, data, evaluation=asked, **{**flat, **settings})


def test_the_run_ends_with_the_adapter_that_answered_and_the_verdict_is_on_the_others(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = questioned(tmp_path, model, data, [ANYTHING] * 21)
    assert run.finish().outcome == "succeeded"
    assert run.of(StepDone)[-1].step == EPOCH
    assert run.codes() == ["train.all_answered"]
    best = run.json("training_state.json")["best"]
    assert (best["step"], best["answered"]) == (EPOCH, 10)
    assert run.of(Evaluated)[-1].best
    assert run.adapter() == run.adapter(best["checkpoint"])
    judged = run.json(f"{EVALUATION}/{EVALUATION_RESULT}")["answers"]
    reported = {one["question"] for one in judged}
    ended = set(run.json(f"{EVALUATION}/{ENDED_BY}")["questions"])
    assert (len(ended), len(reported)) == (10, 11) and not ended & reported


@pytest.mark.parametrize(
    ("patterns", "early_stopping"),
    [
        ([ANYTHING] * 20 + [NOTHING] * 20, 9),
        ([ANYTHING] * (2 * FEWEST - 1), 9),  # too few
        ([ANYTHING] * 40, 0),  # not asked to end early
    ],
)
def test_else_it_runs_to_its_end_and_the_verdict_is_on_all(
    tmp_path: Path, model: Path, data: Data, patterns: list[str], early_stopping: int
) -> None:
    run = questioned(tmp_path, model, data, patterns, early_stopping=early_stopping)
    assert run.finish().outcome == "succeeded"
    assert run.of(StepDone)[-1].step == 2 * EPOCH
    assert "answered" not in run.json("training_state.json")["best"]
    assert run.of(Judged)[-1].evaluation.verdict.questions == len(patterns)


def test_killed_while_it_asks_it_ends_at_the_same_place_with_the_same_adapter(
    tmp_path: Path, model: Path, data: Data
) -> None:
    until_flat = {"learning_rate": 0.01, "num_epochs": 20}
    undisturbed = questioned(tmp_path / "undisturbed", model, data, [ANYTHING] * 40, **until_flat)
    undisturbed.finish()
    run = questioned(tmp_path / "killed", model, data, [ANYTHING] * 40, **until_flat)
    process = run.start()
    run.wait_for_moment(process, "asking", 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run.finish(attempt=2).outcome == "succeeded"
    steps = undisturbed.of(StepDone)[-1].step
    assert run.of(StepDone)[-1].step == steps < 20 * EPOCH
    assert run.adapter() == undisturbed.adapter()


@pytest.mark.parametrize(
    ("losses", "asked"),
    [
        ((3.58, 0.37, 0.27, 0.21), [2, 3]),  # a style, learned in one epoch
        ((1.96, 0.30, 0.17, 0.02), []),  # facts, one after the other
        ((4.42, 0.12, 0.15, 0.15, 0.13, 0.12, 0.11, 0.11), [2, 3, 5]),  # a plateau
        ((2.0, 0.9, 0.002), []),  # nothing is left to learn
        ((math.nan, 1.0, 1.0, 1.0), []),  # not measured before: no gain is known
    ],
)
def test_questions_are_asked_where_the_curve_is_flat(
    losses: tuple[float, ...], asked: list[int]
) -> None:
    progress, found = RunPosition(base_loss=losses[0]), []
    for epoch, loss in enumerate(losses[1:], 1):
        if worth_asking(progress, loss):
            found.append(epoch)
        progress.judge(loss, "")
    assert found == asked

"""Killed or paused at any moment, the result is equal to the bit to that of an undisturbed run."""

from __future__ import annotations

import itertools
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.events import Evaluated, Outcome, PhaseChanged, StepDone
from safetraind.storage import training_state
from tests.trainer.runs import Run, make_run

pytestmark = pytest.mark.compiled

Data = tuple[Path, Path]

# Dropout, accumulation, gradient checkpointing, and evaluation and checkpoints out of step.
HARD: dict[str, Any] = {
    "lora_dropout": 0.2,
    "gradient_checkpointing": True,
    "gradient_accumulation": 3,
    "num_epochs": 4,
    "save_steps": 3,
    "eval_steps": 2,
    "log_steps": 2,
    "weight_decay": 0.01,
    "learning_rate": 3e-3,
    "seed": 5,
}
# A kill comes shortly after one of these, all in turn: right away, in a phase, after a step.
MOMENTS = ("", "loading", "tokenizing", "evaluating", "saving", "step")
KILLS = int(os.environ.get("KILLS", str(len(MOMENTS))))


@dataclass(frozen=True)
class Result:
    """All that a run computed."""

    adapter: bytes
    optimizer: bytes
    best: bytes
    losses: dict[int, tuple[float, float, int]]
    evaluations: dict[int, tuple[float, bool]]
    table: list[tuple[Any, ...]]


def result(run: Run) -> Result:
    state = training_state.read(run.output)
    assert state is not None
    folder = run.output / state.checkpoints[-1]  # its event may have been lost in a kill
    return Result(
        adapter=(folder / "adapters.safetensors").read_bytes(),
        optimizer=(folder / "optimizer.safetensors").read_bytes(),
        best=(run.output / "adapters" / "adapters.safetensors").read_bytes(),
        losses={s.step: (s.loss, s.grad_norm, s.tokens) for s in run.of(StepDone)},
        evaluations={e.step: (e.loss, e.best) for e in run.of(Evaluated)},
        table=[
            (row["step"], row["train_loss"], row["valid_loss"])
            for row in run.json("training_metrics.json")["steps"]
        ],
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path, data: Data) -> Result:
    run = make_run(tmp_path_factory.mktemp("undisturbed"), model, data, **HARD)
    assert run.finish().outcome == "succeeded"
    return result(run)


def killed_and_resumed(run: Run, kills: int) -> int:
    """Kill the worker at random moments, up to `kills` times, and let it finish; how often it was.

    The seed of the moments is printed: SEED=… repeats them as far as the machine's pace lets them.
    """
    seed = int(os.environ.get("SEED", str(time.time_ns())))
    print(f"SEED={seed}")
    chance, killed, attempt = random.Random(seed), 0, 1
    moments = itertools.cycle(chance.sample(MOMENTS, len(MOMENTS)))
    while killed < kills:
        before = len(run.bodies())
        process = run.start(attempt)
        if moment := next(moments):
            run.wait_for_moment(process, moment, before)
        time.sleep(chance.uniform(0, 0.1 if moment else 0.5))  # the moment itself is what is tried
        process.kill()
        if process.wait() == 0:
            break
        killed, attempt = killed + 1, attempt + 1
    assert run.finish(attempt + 1).outcome == "succeeded"
    return killed


def assert_repeats_are_equal(run: Run) -> None:
    """Every step that was done twice gave the same number twice."""
    seen: dict[int, float] = {}
    for step in run.of(StepDone):
        assert seen.setdefault(step.step, step.loss) == step.loss


def test_killed_at_random_moments(
    tmp_path: Path, model: Path, data: Data, undisturbed: Result
) -> None:
    run = make_run(tmp_path, model, data, **HARD)
    assert killed_and_resumed(run, KILLS) > 2
    assert_repeats_are_equal(run)
    assert result(run) == undisturbed


def test_killed_without_validation(tmp_path: Path, model: Path, data: Data) -> None:
    settings = {**HARD, "num_epochs": 2, "packing": True, "save_steps": 1}
    whole = make_run(tmp_path / "whole", model, data, validated=False, **settings)
    assert whole.finish().outcome == "succeeded"
    run = make_run(tmp_path / "killed", model, data, validated=False, **settings)
    killed_and_resumed(run, 2)
    assert_repeats_are_equal(run)
    assert result(run) == result(whole)
    assert run.adapter() == run.adapter(run.checkpoints()[-1])


def test_paused_and_resumed(tmp_path: Path, model: Path, data: Data, undisturbed: Result) -> None:
    run = make_run(tmp_path, model, data, **HARD)
    for attempt, step in ((1, 5), (2, 11)):
        process = run.start(attempt, hold=step)
        run.wait_for_hold()
        run.ask_for("pause")
        run.let_go()
        assert process.wait(120) == 0
        outcome = run.bodies()[-1]
        assert isinstance(outcome, Outcome) and outcome.outcome == "paused"
        run.folder.intent.unlink()
    assert run.finish(3).outcome == "succeeded"
    assert result(run) == undisturbed


def test_questions_in_between_change_nothing(
    tmp_path: Path, model: Path, data: Data, undisturbed: Result
) -> None:
    """One to the adapter in training, before a pause, and one to the base model after it."""
    run = make_run(tmp_path, model, data, **HARD)
    for attempt, step in ((1, 5), (2, 9)):
        process = run.start(attempt, hold=step)
        run.wait_for_hold()
        base = attempt == 2
        answer = run.ask("Em que cidade joga?", temperature=1.0, max_tokens=6, base=base)
        if attempt == 1:
            run.ask_for("pause")
        run.let_go()
        replies = list(answer)
        assert "done" in replies[-1], replies
        source = next(reply["source"] for reply in replies if "source" in reply)
        assert (source["training"], source["step"]) == (True, step + 1)
        assert process.wait(120) == 0
        run.folder.intent.unlink(missing_ok=True)
    assert "answering" in {body.phase for body in run.of(PhaseChanged)}
    assert result(run) == undisturbed

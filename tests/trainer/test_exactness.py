"""Killed or paused at any moment, the result is equal to the bit to that of an undisturbed run."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.events import CheckpointSaved, Evaluated, PhaseChanged, StepDone
from tests.trainer.runs import Run, make_run

Data = tuple[Path, Path]

# Dropout, accumulation, gradient checkpointing, and evaluation and checkpoints out of step.
HARD: dict[str, Any] = {
    "lora_dropout": 0.2,
    "gradient_checkpointing": True,
    "gradient_accumulation": 3,
    "num_epochs": 6,
    "save_steps": 3,
    "eval_steps": 2,
    "log_steps": 2,
    "weight_decay": 0.01,
    "learning_rate": 3e-3,
    "seed": 5,
}
KILLS = int(os.environ.get("KILLS", "6"))


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
    last = max(run.of(CheckpointSaved), key=lambda saved: saved.step)
    folder = Path(last.path)
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


def test_killed_at_random_moments(
    tmp_path: Path, model: Path, data: Data, undisturbed: Result
) -> None:
    run = make_run(tmp_path, model, data, **HARD)
    chance, attempt, kills = random.Random(), 0, 0
    while kills < KILLS:
        attempt += 1
        before = len(run.of(StepDone))
        process = run.start(attempt)
        run.wait_for(StepDone, before + 1)
        time.sleep(chance.uniform(0, 0.25))  # the moment itself is what is tried
        process.kill()
        if process.wait() == 0:
            break
        kills += 1
    assert run.finish(attempt + 1).outcome == "succeeded"
    assert kills > 2
    # Every step that was done twice gave the same number twice.
    seen: dict[int, float] = {}
    for step in run.of(StepDone):
        assert seen.setdefault(step.step, step.loss) == step.loss
    assert result(run) == undisturbed


def test_paused_and_resumed(tmp_path: Path, model: Path, data: Data, undisturbed: Result) -> None:
    run = make_run(tmp_path, model, data, **HARD)
    for attempt in (1, 2):
        process = run.start(attempt)
        run.wait_for(StepDone, 1 + len(run.of(StepDone)))
        run.ask_for("pause")
        assert process.wait(60) == 0
        run.folder.intent.unlink()
    assert run.finish(3).outcome == "succeeded"
    assert result(run) == undisturbed


def test_questions_in_between_change_nothing(
    tmp_path: Path, model: Path, data: Data, undisturbed: Result
) -> None:
    run = make_run(tmp_path, model, data, **HARD)
    process = run.start()
    run.wait_for(StepDone)
    for base in (False, True):
        replies = run.ask("Em que cidade joga?", temperature=1.0, max_tokens=6, base=base)
        assert "done" in replies[-1], replies
        source = next(reply["source"] for reply in replies if "source" in reply)
        assert source["training"]
        assert 0 < source["step"] < 24
    assert process.wait(120) == 0
    assert "answering" in {body.phase for body in run.of(PhaseChanged)}
    assert result(run) == undisturbed

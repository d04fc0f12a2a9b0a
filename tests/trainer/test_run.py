"""A whole training by a real worker: what it says, and what it leaves in the output folder."""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm import generate, load

from safetrain_shared.events import CheckpointSaved, Evaluated, Notice, PhaseChanged, StepDone
from safetraind.storage import training_state
from safetraind.storage.manifest import damaged_files
from tests.trainer.runs import Run, make_run

pytestmark = pytest.mark.compiled

Data = tuple[Path, Path]
STEPS = 12  # 22 samples, 4 a step: 6 steps an epoch, the last of 2 samples


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Path, data: Data) -> Run:
    run = make_run(tmp_path_factory.mktemp("run"), model, data)
    assert run.finish().outcome == "succeeded"
    return run


def test_every_step_is_logged_once_and_the_loss_falls(finished: Run) -> None:
    steps = finished.of(StepDone)
    assert [s.step for s in steps] == list(range(1, STEPS + 1))
    assert [(s.epoch, s.step_in_epoch) for s in steps] == list(
        itertools.product(range(2), range(1, 7))
    )
    assert all(s.total_steps == STEPS for s in steps)
    assert steps[-1].loss < steps[0].loss - 1
    assert steps[-1].eta_seconds == 0
    assert all(s.peak_memory > 0 and s.footprint > 0 and s.tokens_per_second > 0 for s in steps)


def test_evaluations_and_checkpoints_count_inside_the_epoch(finished: Run) -> None:
    # eval_steps 4 and save_steps 3, each epoch's end, and a checkpoint for each best evaluation
    assert [(e.epoch, e.step_in_epoch) for e in finished.of(Evaluated)] == [
        (0, 0),
        (0, 4),
        (0, 6),
        (1, 4),
        (1, 6),
    ]
    saved = [(c.epoch, c.step_in_epoch) for c in finished.of(CheckpointSaved)]
    assert {(0, 3), (0, 6), (1, 3), (1, 6)} <= set(saved)
    best = {(e.epoch, e.step_in_epoch) for e in finished.of(Evaluated) if e.best}
    assert best <= set(saved)


def test_phases_tell_what_the_worker_does(finished: Run) -> None:
    phases = [p.phase for p in finished.of(PhaseChanged)]
    assert phases[:4] == ["loading", "tokenizing", "evaluating", "training"]
    assert {"evaluating", "saving"} <= set(phases)


def test_the_output_folder_holds_the_documents_tree_and_nothing_else(finished: Run) -> None:
    names = {entry.name for entry in finished.output.iterdir()}
    checkpoints = {name for name in names if name.startswith("checkpoint_epoch_")}
    assert names - checkpoints == {
        "adapters",
        "training_metrics.json",
        "training_metrics.csv",
        "training_summary.json",
        "training_state.json",
    }
    state = training_state.read(finished.output)
    assert state is not None
    assert checkpoints == set(state.checkpoints)
    assert len(checkpoints - {state.best["checkpoint"]}) <= 3  # keep_checkpoints
    assert (state.state, state.step, state.total_steps) == ("succeeded", STEPS, STEPS)


def test_the_adapter_is_the_best_checkpoints_and_loads_in_mlx_lm(
    finished: Run, model: Path
) -> None:
    best = min(finished.of(Evaluated), key=lambda e: e.loss)
    folder = finished.output / f"checkpoint_epoch_{best.epoch}_step_{best.step_in_epoch}"
    weights = (finished.output / "adapters" / "adapters.safetensors").read_bytes()
    assert weights == (folder / "adapters.safetensors").read_bytes()
    adapted, tokenizer = load(str(model), adapter_path=str(finished.output / "adapters"))
    base, _ = load(str(model))
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Quem é o rival principal?"}], add_generation_prompt=True
    )
    answer = generate(adapted, tokenizer, prompt, max_tokens=8)
    assert answer != generate(base, tokenizer, prompt, max_tokens=8)


def test_checkpoints_are_whole_by_their_manifest(finished: Run) -> None:
    for folder in finished.output.glob("checkpoint_epoch_*"):
        assert damaged_files(folder) == []


def test_tables_hold_what_the_events_hold(finished: Run) -> None:
    steps = {s.step: s for s in finished.of(StepDone)}
    rows = finished.json("training_metrics.json")["steps"]
    assert rows[0]["train_loss"] is None and rows[0]["valid_loss"] > 0, "before the first step"
    assert [row["train_loss"] for row in rows[1:]] == [steps[row["step"]].loss for row in rows[1:]]
    with (finished.output / "training_metrics.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    trained = [float(row["train_loss"]) for row in table if row["train_loss"]]
    assert trained == [s.loss for s in steps.values()]
    valid = {e.step: e.loss for e in finished.of(Evaluated)}
    assert {int(r["step"]): float(r["valid_loss"]) for r in table if r["valid_loss"]} == valid


def test_the_summary_tells_how_it_went(finished: Run) -> None:
    summary = finished.json("training_summary.json")
    assert summary["outcome"] == "succeeded"
    assert summary["steps"] == summary["total_steps"] == STEPS
    assert summary["samples"] == 22
    assert summary["samples_seen"] == 44
    first, *later = (e.loss for e in finished.of(Evaluated))
    assert (summary["base_loss"], summary["best"]["loss"]) == (first, min(later))
    assert math.isfinite(summary["first_loss"])


def test_pausing_saves_a_checkpoint_and_the_job_goes_on_from_it(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data)
    run.ask_for("pause")
    outcome = run.finish()
    assert (outcome.outcome, run.of(StepDone)) == ("paused", [])
    assert not run.of(Evaluated), "it does not evaluate the base first"
    run.folder.intent.unlink()
    assert run.finish(attempt=2).outcome == "succeeded"
    assert len(run.of(StepDone)) == STEPS
    assert [e.step for e in run.of(Evaluated)].count(0) == 1


def test_cancelling_ends_it_with_a_checkpoint(tmp_path: Path, model: Path, data: Data) -> None:
    run = make_run(tmp_path, model, data, num_epochs=500, save_steps=1000, eval_steps=1000)
    process = run.start()
    run.wait_for(StepDone)
    run.ask_for("cancel")
    assert process.wait(120) == 0
    assert run.bodies()[-1].outcome == "cancelled"  # type: ignore[union-attr]
    assert run.of(CheckpointSaved)[-1].step == run.of(StepDone)[-1].step


def test_sigterm_saves_a_checkpoint_and_says_so(tmp_path: Path, model: Path, data: Data) -> None:
    run = make_run(tmp_path, model, data, num_epochs=500, save_steps=1000, eval_steps=1000)
    process = run.start()
    run.wait_for(StepDone)
    process.terminate()
    assert process.wait(120) == 0
    outcome = run.bodies()[-1]
    assert (outcome.outcome, outcome.cause.code) == ("paused", "train.stopped")  # type: ignore[union-attr]
    assert run.of(CheckpointSaved)


def test_a_damaged_checkpoint_is_passed_over_with_a_word(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data, save_steps=1)
    run.finish()
    weights = run.output / "checkpoint_epoch_1_step_6" / "adapters.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-5] ^= 1
    weights.write_bytes(damaged)
    (run.output / "checkpoint_epoch_1_step_5" / "optimizer.safetensors").unlink()
    assert run.finish(attempt=2).outcome == "succeeded"
    notices = [n.finding for n in run.of(Notice)]
    assert [(f.code, f.args["checkpoint"]) for f in notices] == [
        ("train.checkpoint_damaged", "checkpoint_epoch_1_step_6"),
        ("train.checkpoint_damaged", "checkpoint_epoch_1_step_5"),
        ("train.resumed", "checkpoint_epoch_1_step_4"),
    ]
    steps = run.of(StepDone)
    assert [s.step for s in steps[STEPS:]] == [11, 12]
    assert [s.loss for s in steps[STEPS:]] == [s.loss for s in steps[STEPS - 2 : STEPS]]
    assert damaged_files(run.output / "checkpoint_epoch_1_step_6") == []


def test_without_a_whole_checkpoint_it_begins_again_and_says_so(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data, num_epochs=1, save_steps=100, eval_steps=100)
    run.finish()
    for manifest in run.output.glob("checkpoint_*/manifest.json"):
        manifest.unlink()
    assert run.finish(attempt=2).outcome == "succeeded"
    codes = [n.finding.code for n in run.of(Notice)]
    assert codes == ["train.checkpoint_unfinished", "train.from_the_beginning"]


def test_early_stopping_ends_a_run_that_no_longer_improves(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data, learning_rate=0.0, early_stopping=2, eval_steps=1)
    assert run.finish().outcome == "succeeded"
    losses = [e.loss for e in run.of(Evaluated)]
    assert len(losses) == 4 and losses[0] == losses[1], "at rate 0 the base is what is trained"
    assert [n.finding.code for n in run.of(Notice)] == ["train.early_stop"]


def test_early_stopping_ends_a_run_with_nothing_left_to_learn(
    tmp_path: Path, model: Path, data: Data
) -> None:
    sure = shutil.copytree(model, tmp_path / "sure")  # a random model is never sure of a token
    weights = mx.load(str(sure / "model.safetensors"))
    weights["model.norm.weight"] *= 20
    mx.save_safetensors(str(sure / "model.safetensors"), weights, {"format": "mlx"})
    same = data[1], data[1]
    long = {"num_epochs": 100, "learning_rate": 0.002, "save_steps": 1000, "eval_steps": 1000}
    run = make_run(tmp_path / "run", sure, same, **long, early_stopping=100)
    assert run.finish().outcome == "succeeded"
    *before, last = [e.loss for e in run.of(Evaluated)]
    assert last < 0.01 <= min(before)
    assert run.of(Notice)[-1].finding.code == "train.nothing_left"
    assert run.of(Evaluated)[-1].step == run.of(CheckpointSaved)[-1].step


def test_foreign_files_and_checkpoints_of_another_training_stay(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data)
    other = run.output / "checkpoint_epoch_9_step_9"
    other.mkdir(parents=True)
    (other / "state.json").write_text(json.dumps({"fingerprint": "another"}))
    (run.output / "notes.txt").write_text("mine")
    assert run.finish().outcome == "succeeded"
    assert (run.output / "notes.txt").read_text() == "mine"
    assert other.is_dir()
    assert not run.of(Notice)

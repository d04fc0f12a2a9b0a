"""What must hold when a training has succeeded, and when it goes on: adapter and base model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from safetraind.storage import base_weights, training_state
from tests.tiny import make_tiny_model
from tests.trainer.runs import Run, flip_a_bit, make_run

Data = tuple[Path, Path]
LAST = 5  # of six steps, those done when it is held; the fourth was evaluated


def held(run: Run, damage: str) -> list[str]:
    """Do the damage before the last step, and return the notices of the run to its end."""
    process = run.start(hold=LAST)
    run.wait_for_hold()
    best = run.output / str(training_state.read(run.output).best["checkpoint"])  # type: ignore[union-attr]
    if damage == "output deleted":
        shutil.rmtree(run.output)
    if damage == "adapter deleted":
        shutil.rmtree(run.output / "adapters")
    if damage == "adapter damaged, best deleted":
        flip_a_bit(run.output / "adapters" / "adapters.safetensors")
        shutil.rmtree(best)
    run.let_go()
    assert process.wait(120) == 0, run.folder.log.read_text()
    return run.codes()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("output deleted", ["train.best_gone"]),
        ("adapter deleted", ["train.adapter_repaired"]),
        ("adapter damaged, best deleted", ["train.best_gone"]),
    ],
)
def test_a_training_that_succeeded_has_its_adapter_whatever_became_of_it_meanwhile(
    damage: str, told: list[str], tmp_path: Path, model: Path, data: Data
) -> None:
    # A learning rate of nothing: the first evaluation stays the best, and nothing follows it.
    run = make_run(tmp_path, model, data, learning_rate=0.0, num_epochs=1)
    assert held(run, damage) == told
    assert run.json("training_state.json")["state"] == "succeeded"
    gone = told == ["train.best_gone"]
    state = run.json("training_state.json")
    best = run.checkpoints()[-1] if gone else state["best"]["checkpoint"]
    assert run.adapter() == run.adapter(best)


def test_base_weights_that_were_swapped_in_mid_training_are_named_at_the_resume(
    tmp_path: Path, data: Data
) -> None:
    model = make_tiny_model(tmp_path / "model", layers=2, hidden=32)
    run = make_run(tmp_path, model, data, num_epochs=1)
    process = run.start(hold=4)
    run.wait_for_hold()
    process.kill()
    process.wait()
    kept = tmp_path / "kept"
    shutil.copytree(model, kept)
    file = model / "model.safetensors"
    swapped = bytearray(file.read_bytes())
    swapped[-4000:] = bytes(4000)
    file.write_bytes(swapped)
    outcome = run.finish(attempt=2)
    assert outcome.outcome == "failed" and outcome.cause is not None
    assert outcome.cause.code == "train.base_changed"
    assert outcome.cause.args["files"] == "model.safetensors"
    shutil.rmtree(model)
    shutil.copytree(kept, model)  # other inodes, other times: the same model
    assert run.finish(attempt=3).outcome == "succeeded"


def test_a_base_is_told_by_samples_of_each_file_and_nothing_is_said_without_a_record(
    tmp_path: Path,
) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(10 << 20))
    (tmp_path / "config.json").write_text("{}")
    before = base_weights.facts(tmp_path)
    assert set(before) == {"model.safetensors", "config.json"}
    assert base_weights.changed(before, base_weights.facts(tmp_path)) == []
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "model.safetensors").write_bytes(bytes((10 << 20) + 1))
    now = base_weights.facts(tmp_path)
    assert base_weights.changed(before, now) == ["config.json", "model.safetensors"]
    assert base_weights.changed({}, now) == []

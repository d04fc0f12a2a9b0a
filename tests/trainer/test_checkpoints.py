"""Checkpoints that are damaged, kept, dropped, published and taken back."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import mlx.core as mx
import pytest

from safetrain_shared.events import Notice, StateChanged
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState
from safetraind.storage import training_state
from safetraind.storage.event_file import EventWriter
from safetraind.storage.manifest import damaged_files
from safetraind.worker.training.checkpoint import _write_arrays
from tests.trainer.runs import flip_a_bit, make_run

pytestmark = pytest.mark.compiled

Data = tuple[Path, Path]


def test_damaged_checkpoints_are_not_kept_in_the_place_of_new_ones(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data, validated=False, num_epochs=1, save_steps=1)
    run.finish()
    kept = run.checkpoints()
    assert len(kept) == 3
    for name in kept:
        flip_a_bit(run.output / name / "optimizer.safetensors")
    assert run.finish(attempt=2).outcome == "succeeded"
    assert run.codes() == ["train.checkpoint_damaged"] * 3 + ["train.from_the_beginning"]
    assert run.checkpoints() == kept
    assert all(damaged_files(run.output / name) == [] for name in kept)
    assert run.adapter() == run.adapter(kept[-1])


def test_a_broken_folder_that_does_not_tell_its_run_is_left_alone(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data, num_epochs=1, save_steps=1)
    unknown = run.output / "checkpoint_epoch_9_step_9"
    unknown.mkdir(parents=True)
    (unknown / "mine.txt").write_text("mine")
    assert run.finish().outcome == "succeeded"
    assert run.codes() == ["train.checkpoint_unfinished", "train.from_the_beginning"]
    assert (unknown / "mine.txt").read_text() == "mine"


def test_a_damaged_best_checkpoint_is_not_published_over_its_good_copy(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data, learning_rate=0.0)  # the first evaluation stays the best
    run.finish()
    state = training_state.read(run.output)
    assert state is not None
    best, good = state.best["checkpoint"], run.adapter()
    assert best != run.checkpoints()[-1]
    flip_a_bit(run.output / best / "adapters.safetensors")
    assert run.finish(attempt=2).outcome == "succeeded"
    assert run.codes() == ["train.best_damaged", "train.resumed"]
    assert run.adapter() == good


@pytest.mark.parametrize("validated", [False, True])
def test_after_a_kill_before_its_publication_the_best_is_published(
    validated: bool, tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data, validated=validated)
    run.finish()
    published = run.adapter()
    older = run.output / run.checkpoints()[0] / "adapters.safetensors"
    assert older.read_bytes() != published
    shutil.copyfile(older, run.output / "adapters" / "adapters.safetensors")
    assert run.finish(attempt=2).outcome == "succeeded"
    assert run.adapter() == published


def test_weights_gone_astray_are_taken_back_and_the_checkpoint_before_is_published(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(
        tmp_path, model, data, save_steps=1, eval_steps=100, max_grad_norm=0.0, schedule="constant"
    )
    process = run.start(hold=2)
    run.wait_for_hold()
    run.ask_for("pause")
    run.let_go()
    assert process.wait(120) == 0
    run.folder.intent.unlink()
    good = run.checkpoints()[-1]
    run.replan(learning_rate=1e18)
    outcome = run.finish(attempt=2)
    assert outcome.cause is not None
    assert (outcome.outcome, outcome.cause.code) == ("failed", "train.non_finite_weights")
    assert run.codes()[-1] == "train.checkpoint_withdrawn"
    assert run.checkpoints()[-1] == good
    assert run.adapter() == run.adapter(good)
    state = training_state.read(run.output)
    assert state is not None
    assert (state.state, state.checkpoints[-1]) == ("failed", good)
    assert run.json("training_summary.json")["steps"] == state.step


def test_weights_gone_astray_at_once_leave_nothing(tmp_path: Path, model: Path, data: Data) -> None:
    run = make_run(tmp_path, model, data, save_steps=1, learning_rate=1e18, max_grad_norm=0.0)
    assert run.finish().outcome == "failed"
    assert run.checkpoints() == []
    assert not (run.output / "adapters" / "adapters.safetensors").exists()


def test_the_summary_tells_what_happened_on_the_way(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data, num_epochs=1)
    run.finish()
    assert run.json("training_summary.json")["happened"] == []
    daemon = EventWriter(run.folder.events, attempt=1)
    daemon.append(StateChanged(JobState.INTERRUPTED, Finding("job.out_of_memory")))
    daemon.append(Notice(Finding("backoff.micro_batch", args={"batch_size": 1})))
    daemon.append(StateChanged(JobState.RUNNING))
    daemon.close()
    flip_a_bit(run.output / run.checkpoints()[-1] / "optimizer.safetensors")
    run.finish(attempt=2)
    happened = run.json("training_summary.json")["happened"]
    assert [(event["attempt"], event["code"]) for event in happened] == [
        (1, "job.out_of_memory"),
        (1, "backoff.micro_batch"),
        (2, "train.checkpoint_damaged"),
        (2, "train.resumed"),
    ]
    assert happened[1]["args"] == {"batch_size": 1}


def test_arrays_that_cannot_be_written_tell_why(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "a.safetensors"
    with pytest.raises(OSError) as refused:
        _write_arrays(file, {"a": mx.zeros(3)})
    assert (refused.value.errno, refused.value.filename) == (errno.ENOENT, str(file))

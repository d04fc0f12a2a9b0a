"""A run of so many steps: as many as `iters` of mlx-lm says, whatever that is in epochs."""

from __future__ import annotations

from pathlib import Path

import pytest

from safetrain_shared.events import CheckpointSaved, Evaluated, StepDone
from safetrain_shared.settings import TrainingSettings
from tests.trainer.runs import make_run


@pytest.mark.parametrize(("max_steps", "total"), [(0, 18), (4, 4), (40, 40)])
def test_steps_go_before_epochs(max_steps: int, total: int) -> None:
    assert TrainingSettings(num_epochs=3, max_steps=max_steps).total_steps(6) == total


def test_a_run_ends_at_its_last_step_within_an_epoch_evaluated_and_saved(
    tmp_path: Path, model: Path, data: tuple[Path, Path]
) -> None:
    run = make_run(tmp_path, model, data, num_epochs=1, max_steps=7)  # an epoch has six
    assert run.finish().outcome == "succeeded"
    steps = run.of(StepDone)
    assert [s.step for s in steps] == list(range(1, 8))
    assert {s.total_steps for s in steps} == {7}
    assert (steps[-1].epoch, steps[-1].step_in_epoch) == (1, 1)
    assert run.of(Evaluated)[-1].step == run.of(CheckpointSaved)[-1].step == 7
    assert "train.early_stop" not in run.codes()

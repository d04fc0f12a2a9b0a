"""Several ranks train as one process does: within rounding, and equal to the bit on repetition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from safetrain_shared.events import Evaluated, StepDone
from tests.trainer.runs import make_run

Data = tuple[Path, Path]


def test_two_ranks_agree_with_one_process_within_rounding(
    tmp_path: Path, model: Path, data: Data
) -> None:
    """The windows have 6 samples and the last of an epoch 4, cut into micro-batches of 2: the ranks
    have unequal shares of tokens, and different numbers of micro-batches.
    """
    settings: dict[str, Any] = {"gradient_accumulation": 3, "weight_decay": 0.01, "num_epochs": 1}
    alone = make_run(tmp_path / "alone", model, data, **settings)
    assert alone.finish().outcome == "succeeded"
    together = make_run(tmp_path / "together", model, data, **settings)
    assert [process.wait(120) for process in together.start_ranks(2)] == [0, 0]

    losses = {step.step: step.loss for step in alone.of(StepDone)}
    assert {step.step: step.loss for step in together.of(StepDone)} == pytest.approx(losses)
    judged = [body.loss for body in alone.of(Evaluated)]
    assert [body.loss for body in together.of(Evaluated)] == pytest.approx(judged)
    assert [s.tokens for s in together.of(StepDone)] == [s.tokens for s in alone.of(StepDone)]
    weights, others = (
        dict(mx.load(str(run.output / "adapters" / "adapters.safetensors")))  # type: ignore[arg-type]
        for run in (alone, together)
    )
    for name, weight in weights.items():
        assert mx.allclose(weight, others[name], rtol=1e-3, atol=1e-5), name
    assert not list(together.folder.rank(1).root.glob("checkpoint*"))

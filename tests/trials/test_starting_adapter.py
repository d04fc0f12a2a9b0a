"""A training that starts from a given adapter, and what is recorded of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import mlx.core as mx

from safetrain_shared.events import Notice
from tests.tiny import make_chat_data, make_tiny_model
from tests.trainer.runs import Run, make_run


def start_from(run: Run, adapter: Path) -> Run:
    """The run as the daemon makes it for a job with `start_adapter`."""
    frozen = json.loads(run.folder.spec.read_text())
    frozen["spec"]["start_adapter"] = str(adapter)
    sha256 = hashlib.sha256(adapter.read_bytes()).hexdigest()
    frozen["data"]["start_adapter"] = {"path": str(adapter), "sha256": sha256}
    run.folder.spec.write_text(json.dumps(frozen))
    return run


def test_a_training_starts_from_the_adapter_it_is_given(tmp_path: Path) -> None:
    model, data = make_tiny_model(tmp_path / "m", layers=2), make_chat_data(tmp_path / "d", 8, 2)
    shape: dict[str, Any] = {"num_epochs": 1, "lora_layers": 1}
    first = make_run(tmp_path / "a", model, data, **shape)
    assert first.finish().outcome == "succeeded"
    adapter = first.output / "adapters" / "adapters.safetensors"

    again = start_from(make_run(tmp_path / "b", model, data, **shape), adapter)
    assert again.finish().outcome == "succeeded"
    notices = [notice.finding for notice in again.of(Notice)]
    assert [(n.code, n.args["path"]) for n in notices] == [("train.started_from", str(adapter))]
    summary = again.json("training_summary.json")
    assert summary["start_adapter"] == str(adapter)
    assert summary["first_loss"] < first.json("training_summary.json")["first_loss"]

    other = start_from(make_run(tmp_path / "c", model, data, **shape, lora_rank=3), adapter)
    outcome = other.finish()
    assert outcome.cause is not None and outcome.cause.code == "train.other_adapter"

    far = {name: weights * 1e30 for name, weights in mx.load(str(adapter)).items()}
    mx.save_safetensors(str(tmp_path / "far.safetensors"), far)
    astray = make_run(tmp_path / "f", model, data, validated=False, **shape)
    outcome = start_from(astray, tmp_path / "far.safetensors").finish()
    assert outcome.cause is not None and outcome.cause.code == "train.non_finite_weights"
    codes = [notice.finding.code for notice in astray.of(Notice)]
    assert codes == ["train.started_from"], "there was no checkpoint to withdraw"

    changed = start_from(make_run(tmp_path / "e", model, data, **shape), adapter)
    adapter.write_bytes(adapter.read_bytes() + b" ")
    outcome = changed.finish()
    assert outcome.cause is not None and outcome.cause.code == "job.data_changed"

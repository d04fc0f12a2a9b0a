"""The probe worker: what one setup or one model cannot do is found out, and ends nothing else."""

from __future__ import annotations

import dataclasses
import gc
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3

from safetrain_shared.codec import to_plain
from safetrain_shared.settings import TrainingSettings
from safetraind.worker.loading import load
from safetraind.worker.probe import probe
from safetraind.worker.probe.rehearse import Rehearsal
from tests.tiny import make_tiny_model

VOCABULARY = 512


def setup(rows: int = 2, valid_width: int = 0, **settings: Any) -> dict[str, Any]:
    chosen = dataclasses.replace(
        TrainingSettings(), batch_size=rows, gradient_accumulation=2, **settings
    )
    return {
        "settings": to_plain(chosen),
        "rows": rows,
        "width": 32,
        "learned": rows * 32,
        "valid_width": valid_width,
        "valid_learned": rows * valid_width,
        "estimate": 50_000_000,
    }


def probed(folder: Path, model: Path, *setups: dict[str, Any], room: int = 1 << 30) -> Any:
    """What a probe in this process finds; what other tests left in MLX's memory is not its own."""
    gc.collect()
    before = mx.get_active_memory()
    run = folder / "run"
    run.mkdir()
    request = {"model": str(model), "setups": setups, "room": room, "seconds": 60}
    (run / probe.REQUEST).write_text(json.dumps(request))
    assert probe.main([str(run)]) == 0
    found = json.loads((run / "probe.json").read_text())
    for measure in found.get("measures", []):
        measure["peak"] -= before
    return found


def test_a_tokenizer_that_makes_nothing_of_the_prompt_does_not_matter(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "m")
    config = json.loads((model / "tokenizer.json").read_text())
    config["normalizer"] = {"type": "Replace", "pattern": {"Regex": "[0-9 ]"}, "content": ""}
    (model / "tokenizer.json").write_text(json.dumps(config))
    assert load(str(model)).tokenizer.encode("1 2 3") == []
    found = probed(tmp_path, model, setup())
    assert found["loaded"]["seconds"] > 0 and found["measures"]


def test_a_setup_that_cannot_be_rehearsed_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise ValueError("cannot export a primitive of your own")

    monkeypatch.setattr(Rehearsal, "peak", refuse)
    found = probed(tmp_path, make_tiny_model(tmp_path / "m"), setup(rows=2), setup(rows=1))
    assert found["rehearsed"] == []
    assert [m["rows"] for m in found["measures"]] == [2, 1]


def test_one_setup_that_cannot_be_rehearsed_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsed = Rehearsal.peak

    def picky(self: Rehearsal, settings: TrainingSettings, batch: Any) -> int:
        if len(batch.inputs) == 4:
            raise RuntimeError("no")
        return rehearsed(self, settings, batch)

    monkeypatch.setattr(Rehearsal, "peak", picky)
    model = make_tiny_model(tmp_path / "m")
    found = probed(tmp_path, model, setup(rows=4), setup(rows=2), setup(rows=1), room=40_000_000)
    assert [m["rows"] for m in found["rehearsed"]] == [2, 1]
    # Its estimate is above the room.
    assert sorted(m["rows"] for m in found["measures"]) == [1, 2]


def test_a_model_that_cannot_be_trained_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Any:
        raise ValueError("no gradient of that")

    monkeypatch.setattr(probe, "_measured", refuse)
    found = probed(tmp_path, make_tiny_model(tmp_path / "m"), setup())
    assert found["failed"]["code"] == "model.does_not_train"
    assert "no gradient of that" in found["failed"]["args"]["reason"]


def test_memory_that_runs_out_while_loading_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise RuntimeError("[malloc] Unable to allocate 999 bytes.")

    monkeypatch.setattr(probe, "load", refuse)
    found = probed(tmp_path, make_tiny_model(tmp_path / "m"), setup())
    assert found["failed"]["code"] == "model.does_not_load"
    assert "Unable to allocate" in found["failed"]["args"]["reason"]


@pytest.mark.parametrize(
    "settings",
    [
        {"packing": True},
        {"packing": True, "gradient_checkpointing": True},
        {"lora_dropout": 0.1},
        {"loss_chunk": 64},
        {"loss_chunk": 64, "gradient_checkpointing": True},
    ],
    ids=["packed", "packed and recomputed", "with dropout", "in chunks", "in recomputed chunks"],
)
def test_what_is_rehearsed_is_what_is_measured(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = make_tiny_model(tmp_path / "m", hidden=128, vocab=2048)
    chosen = {**setup(**settings), "width": 128, "learned": 256}
    found = probed(tmp_path, model, chosen)
    (rehearsed,), (measured,) = found["rehearsed"], found["measures"]
    assert 0.95 <= rehearsed["peak"] / measured["peak"] <= 1.15


def test_the_model_of_one_setup_does_not_count_in_the_peak_of_the_next(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "m", hidden=256, vocab=8192)
    setups = [setup(rows=2), setup(rows=1, gradient_checkpointing=True)]
    gc.disable()  # whether the collector came by chance must not decide
    try:
        found = probed(tmp_path, model, *setups)
    finally:
        gc.enable()
    for rehearsed, measured in zip(found["rehearsed"], found["measures"], strict=True):
        assert 0.95 <= rehearsed["peak"] / measured["peak"] <= 1.15


def test_a_wide_evaluation_counts_in_the_rehearsal_and_in_the_measure(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "m", hidden=128, vocab=4096)
    found = probed(tmp_path, model, setup(), setup(valid_width=1024))
    # The narrow one comes first, and is as many rows: only the other is asked for alone.
    (tmp_path / "wide").mkdir()
    wide = probed(tmp_path / "wide", model, setup(valid_width=1024))
    for kind in ("rehearsed", "measures"):
        assert wide[kind][0]["peak"] > 2 * found[kind][0]["peak"]
    assert 0.95 <= wide["rehearsed"][0]["peak"] / wide["measures"][0]["peak"] <= 1.1


def test_a_model_within_a_model_is_rehearsed(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "m")
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 64,
        "sliding_window_pattern": 2,
    }
    config = {"model_type": "gemma3", "vocab_size": VOCABULARY, "text_config": text}
    model = gemma3.Model(gemma3.ModelArgs.from_dict(json.loads(json.dumps(config))))
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    found = probed(tmp_path, folder, setup(gradient_checkpointing=True))
    assert not {"unrehearsed", "failed"} & found.keys(), found
    assert found["rehearsed"] and found["measures"]

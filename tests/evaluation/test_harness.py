"""Benchmarks of lm-evaluation-harness for base and adapter, where the extra is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safetrain_shared.errors import InvalidInput
from safetraind.worker.evaluation.harness import task_scores
from tests.evaluation.test_evaluate import save_new_adapter
from tests.tiny import make_tiny_model

TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: ["a", "b"]
doc_to_target: "{{{{y}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def test_a_task_is_measured_for_base_and_adapter_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="the extra tasks is not installed here")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    lines = (json.dumps({"q": f"Quem marcou o golo {n}?", "y": n % 2}) for n in range(6))
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    (tmp_path / "task.yaml").write_text(TASK.format(path=tmp_path / "data.jsonl"))
    make_tiny_model(tmp_path / "model", layers=2)
    save_new_adapter(tmp_path / "model", tmp_path / "adapters")
    asked = (str(tmp_path / "model"), tmp_path / "adapters", [str(tmp_path / "task.yaml")], 0)
    (score,) = task_scores(*asked, tmp_path / "kept")
    assert score.metric == "acc" and score.base == score.adapter
    assert 0 <= score.base <= 1 and score.base_error > 0
    (tmp_path / "data.jsonl").unlink()
    assert task_scores(*asked, tmp_path / "kept") == (score,), "it is not measured twice"


def test_without_the_extra_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        with pytest.raises(InvalidInput, match="safetrain\\[tasks\\]"):
            task_scores("model", tmp_path, ["hellaswag"], 0, tmp_path)

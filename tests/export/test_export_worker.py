"""What an export writes, and that it answers as the adapter did."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_unflatten

from safetrain_shared.errors import Blocked, Conflict, InvalidInput
from safetraind.worker.export import agreement, export
from safetraind.worker.export.fuse import fused_bytes
from safetraind.worker.export.modelfile import go_template
from safetraind.worker.loading import attach_adapter, load
from safetraind.worker_messages import export_messages
from safetraind.worker_messages.export_messages import TOLERANCE
from tests.export.conftest import Run, make_adapter
from tests.tiny import make_tiny_model


def answers(model, tokenizer) -> list[int]:
    prompt = tokenizer.encode("Qual foi a melhor classificação do Farense?")
    return agreement._greedy(model, prompt)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_mlx_lm_loads_the_folder_and_answers_as_with_the_adapter(
    run: Run, plain: Path, tmp_path: Path, kind: str
) -> None:
    result = run(plain, adapter={"fine_tune_type": kind})
    assert result.agreement.lost < 1e-3
    assert result.agreement.differing == 0
    fused, tokenizer = mlx_lm.load(result.path)
    adapted, _ = mlx_lm.load(str(plain), adapter_path=str(tmp_path / "adapter"))
    base, _ = mlx_lm.load(str(plain))
    assert answers(fused, tokenizer) == answers(adapted, tokenizer)
    assert answers(fused, tokenizer) != answers(base, tokenizer)


def test_a_quantized_model_stays_quantized_but_for_its_fused_layers(
    run: Run, quantized: Path, tmp_path: Path
) -> None:
    result = run(quantized, adapter={"lora_layers": 1})
    assert result.quantized
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    fused, _ = mlx_lm.load(result.path)
    linear = fused.model.layers[0].self_attn.q_proj
    assert linear.bits == config["quantization"]["bits"] == 4
    raised = fused.model.layers[-1].self_attn.q_proj
    assert result.bits == getattr(raised, "bits", 16) > 4


def test_fusing_as_mlx_lm_does_loses_more_and_is_noticed(
    quantized: Path, valid: Path, tmp_path: Path
) -> None:
    loaded = load(str(quantized), dequantize=True)
    attach_adapter(loaded.model, make_adapter(tmp_path / "adapter", quantized))
    reference = agreement.ask_both(loaded.model, loaded.tokenizer, str(valid))
    lossy = load(str(quantized), dequantize=False)
    attach_adapter(lossy.model, tmp_path / "adapter")
    fused = [(n, m.fuse()) for n, m in lossy.model.named_modules() if hasattr(m, "fuse")]
    lossy.model.update_modules(tree_unflatten(fused))
    verdict = reference.compare(lossy.model)
    assert verdict.lost > TOLERANCE
    assert not verdict.good


def test_dequantized_means_no_quantization_at_all(run: Run, quantized: Path) -> None:
    result = run(quantized, dequantize=True)
    assert not result.quantized
    fused, _ = mlx_lm.load(result.path)
    assert not any(hasattr(module, "bits") for module in fused.modules())


@pytest.mark.parametrize("base", ["plain", "quantized"])
def test_the_gguf_file_agrees_too_and_ollama_is_told_of_it(
    run: Run, base: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    result = run(request.getfixturevalue(base), gguf=True)
    assert result.gguf and result.gguf.agreement.lost < TOLERANCE
    modelfile = (tmp_path / "out" / "Modelfile").read_text()
    assert modelfile.startswith("FROM ./model.gguf\n")
    assert "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n" in modelfile
    assert 'PARAMETER stop "<|im_end|>"' in modelfile


def test_a_model_whose_rows_are_in_ggml_order_already_is_not_reordered(
    run: Run, tmp_path: Path
) -> None:
    model = make_tiny_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "rope_traditional": True}))
    result = run(model, gguf=True)
    assert result.gguf and result.gguf.agreement.lost < TOLERANCE


def test_what_gguf_cannot_hold_is_refused_before_anything_is_written(
    run: Run, plain: Path, tmp_path: Path
) -> None:
    model = make_tiny_model(tmp_path / "model")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InvalidInput, check=lambda e: e.code == "export.gguf_tokenizer"):
        run(model, gguf=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "model"]


def test_an_output_folder_with_files_is_left_alone(run: Run, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(Conflict, check=lambda e: e.code == "export.output_taken"):
        run(plain)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_export_that_does_not_agree_leaves_nothing_behind(
    run: Run, quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_messages, "TOLERANCE", 0.0)
    with pytest.raises(Blocked, check=lambda e: e.code == "export.differs"):
        run(quantized)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter"]


def test_too_little_memory_is_a_sentence_before_it_is_a_crash(
    run: Run, quantized: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_SPARE", 1 << 60)
    with pytest.raises(Blocked, check=lambda e: e.code == "export.no_memory"):
        run(quantized)


@pytest.mark.parametrize("dequantize", [False, True])
def test_the_size_is_known_before_it_is_written(
    run: Run, quantized: Path, tmp_path: Path, dequantize: bool
) -> None:
    result = run(quantized, dequantize=dequantize)
    loaded = load(str(quantized), dequantize=False)
    attach_adapter(loaded.model, tmp_path / "adapter")
    expected = fused_bytes(loaded.model, bits=result.bits, dequantize=dequantize)
    written = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert written == pytest.approx(expected, rel=0.25)


def test_without_a_system_turn_in_the_template_there_is_none_in_the_modelfile(plain: Path) -> None:
    _, tokenizer = mlx_lm.load(str(plain))
    tokenizer._tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    assert go_template(tokenizer).template == "[user]{{ .Prompt }}[assistant]{{ .Response }}"


def test_a_difference_that_rounding_decides_is_no_difference() -> None:
    base, adapted = mx.zeros((1, 3)), mx.array([[1.0, 0.99, 0.5]])
    swapped, wrong = mx.array([[0.99, 1.0, 0.5]]), mx.array([[0.9, 0.9, 1.0]])
    assert agreement.compare(base, adapted, swapped).differing == 0
    assert agreement.compare(base, adapted, wrong).differing == 1

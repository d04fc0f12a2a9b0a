"""GGUF files of every kind that is taken become folders that mlx-lm loads; others are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import dequantize_model

from safetrain_shared.errors import InvalidInput
from safetrain_shared.messages import SENTENCES
from safetraind.storage.manifest import damaged_files
from safetraind.worker.convert.convert import convert_gguf, main
from tests.models.gguf_files import export
from tests.tiny import CHAT_TEMPLATE

KINDS = ["F32", "F16", "Q4_0", "Q4_1", "Q8_0"]
TEXT = "Qual foi a melhor classificação do Farense? O 5.º lugar, em 1994/95 (€ 7,3)."


def loaded(folder: Path):
    model, tokenizer = mlx_lm.load(str(folder))
    model.set_dtype(mx.float32)
    return dequantize_model(model), tokenizer


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_the_one_in_the_file(tiny_model, tmp_path, kind):
    unpacked = export(tiny_model, tmp_path / "tiny.gguf", kind)
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    model, _ = loaded(tmp_path / "out")
    weights = dict(tree_flatten(model.parameters()))
    assert weights.keys() == unpacked.keys()
    for name, expected in unpacked.items():
        np.testing.assert_allclose(np.array(weights[name]), expected, rtol=1e-6, atol=1e-6)


def test_the_converted_model_computes_what_the_original_does(tiny_model, tmp_path):
    export(tiny_model, tmp_path / "tiny.gguf", "F32")
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    (model, tokenizer), (original, _) = loaded(tmp_path / "out"), loaded(tiny_model)
    tokens = mx.array([tokenizer.encode(TEXT)])
    assert mx.abs(model(tokens) - original(tokens)).max().item() < 1e-4


@pytest.mark.parametrize(("gpu", "dtype"), [(True, mx.bfloat16), (False, mx.float32)])
def test_every_float_is_in_the_type_that_the_machine_computes_in(
    tiny_model, tmp_path, monkeypatch, gpu, dtype
):
    monkeypatch.setattr(mx, "is_available", lambda _device: gpu)
    export(tiny_model, tmp_path / "tiny.gguf", "Q4_1")
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    model, _ = mlx_lm.load(str(tmp_path / "out"))
    assert {w.dtype for _, w in tree_flatten(model.parameters())} == {dtype, mx.uint32}
    assert model(mx.array([[1]])).dtype == dtype
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert f"mlx.core.{config['torch_dtype']}" == str(dtype)


def test_quantized_files_stay_quantized(tiny_model, tmp_path):
    for kind, bits in (("Q4_0", 4), ("Q4_1", 4), ("Q8_0", 8), ("F16", None)):
        export(tiny_model, tmp_path / "tiny.gguf", kind)
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        expected = {"group_size": 32, "bits": bits} if bits else None
        assert config.get("quantization") == expected


def test_the_tokenizer_is_the_files_own(tiny_model, tmp_path):
    export(tiny_model, tmp_path / "tiny.gguf")
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    (_, ours), (_, original) = mlx_lm.load(str(tmp_path / "out")), mlx_lm.load(str(tiny_model))
    assert ours.encode(TEXT) == original.encode(TEXT)
    assert ours.decode(ours.encode(TEXT)) == TEXT
    assert ours.get_vocab() == original.get_vocab()
    assert ours.chat_template == CHAT_TEMPLATE
    assert ours.eos_token_ids == original.eos_token_ids
    turns = [{"role": "user", "content": TEXT}]
    assert ours.apply_chat_template(turns) == original.apply_chat_template(turns)


def test_smollm_splits_numbers_into_digits(tiny_model, tmp_path):
    export(tiny_model, tmp_path / "tiny.gguf", tokenizer__ggml__pre="smollm")
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    _, tokenizer = mlx_lm.load(str(tmp_path / "out"))
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode("1994/95")]
    assert pieces == ["1", "9", "9", "4", "/", "9", "5"]


def test_a_beginning_token_is_added_where_the_file_asks_for_it(tiny_model, tmp_path):
    export(tiny_model, tmp_path / "tiny.gguf", tokenizer__ggml__add_bos_token=True)
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    _, tokenizer = mlx_lm.load(str(tmp_path / "out"))
    assert tokenizer.encode("Faro")[0] == tokenizer.bos_token_id


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"general__architecture": "gemma"}, "gguf.architecture", "gemma"),
        ({"general__file_type": 15}, "gguf.quantization", 15),
        ({"tokenizer__ggml__model": "llama"}, "gguf.tokenizer", "llama"),
        ({"tokenizer__ggml__pre": "qwen2"}, "gguf.tokenizer", "qwen2"),
        ({"llama__block_count": None}, "gguf.incomplete", "llama.block_count"),
        ({"tensor__rope_freqs.weight": np.ones(8, "<f4")}, "gguf.tensor", "rope_freqs.weight"),
        ({"llama__block_count": 3}, "gguf.incomplete", None),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(tiny_model, tmp_path, changes, code, named):
    export(tiny_model, tmp_path / "tiny.gguf", **changes)
    with pytest.raises(InvalidInput) as refused:
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    assert refused.value.code == code
    assert code in SENTENCES
    assert named is None or named in refused.value.args_by_name.values()
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_files_that_are_no_gguf_or_are_cut_short_are_refused(tiny_model, tmp_path):
    export(tiny_model, tmp_path / "tiny.gguf")
    whole = (tmp_path / "tiny.gguf").read_bytes()
    for content, code in (
        (b"", "gguf.not_gguf"),
        (b"PK\x03\x04 a zip", "gguf.not_gguf"),
        (b"GGUF", "gguf.unreadable"),
    ):
        (tmp_path / "bad.gguf").write_bytes(content)
        with pytest.raises(InvalidInput) as refused:
            convert_gguf(tmp_path / "bad.gguf", tmp_path / "out")
        assert refused.value.code == code
    # A file cut in the middle may crash MLX's reader: only a child may die of it.
    (tmp_path / "bad.gguf").write_bytes(whole[: len(whole) // 2])
    ended = run_child(tmp_path / "bad.gguf", tmp_path / "out")
    assert ended.returncode != 0
    assert not (tmp_path / "out").exists()


def test_an_earlier_folder_is_replaced_only_by_a_whole_one(tiny_model, tmp_path):
    export(tiny_model, tmp_path / "tiny.gguf", "Q8_0")
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidInput):
        convert_gguf(tmp_path / "bad.gguf", tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    export(tiny_model, tmp_path / "tiny.gguf", "Q4_0")
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    assert damaged_files(tmp_path / "out") == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.gguf", "out", "tiny.gguf"]


def test_the_manifest_notices_a_flipped_bit_a_missing_file_and_a_shorter_one(tiny_model, tmp_path):
    export(tiny_model, tmp_path / "tiny.gguf")
    folder = tmp_path / "out"
    convert_gguf(tmp_path / "tiny.gguf", folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    weights.write_bytes(flipped)
    assert damaged_files(folder) == ["model.safetensors"]
    assert damaged_files(folder, hashes=False) == []
    weights.write_bytes(whole[:-1])
    assert damaged_files(folder, hashes=False) == ["model.safetensors"]
    weights.unlink()
    assert damaged_files(folder, hashes=False) == ["model.safetensors"]
    (folder / "manifest.json").unlink()
    assert damaged_files(folder) is None


def run_child(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "safetraind.worker", "convert", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_child_process_reports_progress_and_copies_documents(tiny_model, tmp_path):
    export(tiny_model, tmp_path / "tiny.gguf")
    (tmp_path / "LICENSE").write_text("Apache-2.0\n")
    ended = run_child(tmp_path / "tiny.gguf", tmp_path / "out", tmp_path / "LICENSE")
    assert ended.returncode == 0, ended.stderr
    said = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["phase"] for line in said] == ["converting", "checking", "checking"]
    assert said[-1]["done"] == 1.0
    assert (tmp_path / "out" / "LICENSE").read_text() == "Apache-2.0\n"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["licence"] == "apache-2.0"
    assert "LICENSE" in manifest["files"]


def test_a_refusal_leaves_the_child_as_code_and_arguments(tmp_path, capsys):
    (tmp_path / "no.gguf").write_bytes(b"no")
    assert main([str(tmp_path / "no.gguf"), str(tmp_path / "out")]) == InvalidInput.exit_code
    *_, line = capsys.readouterr().out.splitlines()
    assert json.loads(line)["error"] == {
        "class": "InvalidInput",
        "code": "gguf.not_gguf",
        "args": {"path": str(tmp_path / "no.gguf")},
    }

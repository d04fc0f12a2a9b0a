"""Each family that is written as GGUF: it agrees once read back, and llama.cpp computes the same.

The second part needs llama.cpp, in the package xllamacpp; `make gguf` installs and runs it.
"""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from gguf import GGMLQuantizationType

from safetrain_shared.errors import InvalidInput
from safetraind.worker.export import agreement, gguf_writer
from safetraind.worker.export.agreement import Probe
from safetraind.worker.export.four_bits import four_bit_matrices
from safetraind.worker.inference.generation import encode_prompt
from safetraind.worker.loading import load
from safetraind.worker_messages.export_messages import ROUNDED_TOLERANCE, TOLERANCE
from tests.export.conftest import Run
from tests.export.families import FAMILIES, make_family
from tests.tiny import make_tiny_model

QUESTIONS = ("Qual foi a melhor classificação do Farense?", "Olá! Em que ano, 1910 ou 1911?")
CONTEXT = 512
TIE = {"f16": 0.1, "q8_0": 0.5, "q4_1": 0.5}
"""The largest difference of a log-probability from ours. Drawn weights amplify rounding."""

EIGHT_BITS = ("llama", "qwen2", "qwen3", "phi3", "smollm3")


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_agrees_once_it_is_read_back(name: str, run: Run, tmp_path: Path) -> None:
    result = run(make_family(tmp_path / "model", name), gguf=True)
    assert result.gguf is not None
    assert result.gguf.agreement.lost < 0.01
    assert result.gguf.agreement.differing == 0
    assert result.gguf.type == "f16"


def test_eight_bits_take_half_of_the_room_and_agree_nearly(run: Run, tmp_path: Path) -> None:
    result = run(make_family(tmp_path / "model", "llama"), gguf=True, gguf_type="q8_0")
    assert result.gguf is not None
    assert 0.001 < result.gguf.agreement.lost < ROUNDED_TOLERANCE
    whole = (tmp_path / "out" / "model.safetensors").stat().st_size  # float32
    assert (tmp_path / "out" / "model.gguf").stat().st_size < 0.4 * whole


@pytest.mark.parametrize("group", [32, 64, 128])
def test_a_bases_four_bits_are_the_same_values_in_ggmls_blocks(group: int) -> None:
    layer = nn.QuantizedLinear.from_linear(nn.Linear(256, 96, bias=False), group, 4)
    layer.set_dtype(mx.float16)
    found = four_bit_matrices(nn.Sequential(layer))["layers.0.weight"]
    ours = mx.dequantize(
        layer.weight, layer.scales.astype(mx.float32), layer.biases.astype(mx.float32), group, 4
    )
    theirs = gguf.dequantize(found.blocks(), GGMLQuantizationType.Q4_1)
    assert np.abs(theirs - np.array(ours)).max() < 1e-7


def test_a_base_in_four_bits_keeps_them_and_another_is_refused(
    run: Run, quantized: Path, plain: Path, tmp_path: Path
) -> None:
    result = run(quantized, gguf=True, gguf_type="q4_1", adapter={"lora_layers": 1})
    assert result.gguf is not None and result.gguf.agreement.lost < TOLERANCE
    kinds = Counter(one.tensor_type.name for one in gguf.GGUFReader(result.gguf.path).tensors)
    assert kinds["Q4_1"] > 3 and kinds["Q8_0"] > 3 and kinds.keys() == {"Q4_1", "Q8_0", "F32"}
    with pytest.raises(InvalidInput) as refused:
        gguf_writer.check_takes(plain, "q4_1")
    assert refused.value.code == "export.gguf_no_four_bits"


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling yarn"),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("gemma2", {"query_pre_attn_scalar": 24}, "query_pre_attn_scalar"),
        ("gemma3", {"sliding_window_pattern": 2}, "sliding_window_pattern"),
        ("llama", {"model_type": "granite"}, "granite"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 0]}, "no_rope_layers"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    name: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    model = make_family(tmp_path / "model", name)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InvalidInput) as refused:
        gguf_writer.check_takes(model)
    assert refused.value.code == "export.gguf_architecture"
    assert str(refused.value.args_by_name["architecture"]).endswith(said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stored"),
    [
        *((name, "f16") for name in FAMILIES),
        *((name, "q8_0") for name in EIGHT_BITS),
        ("llama in 4 bits", "q4_1"),
    ],
)
def test_llama_cpp_loads_it_cuts_text_alike_and_answers_alike(
    name: str, stored: str, run: Run, tmp_path: Path
) -> None:
    four_bits = {"quantized": True, "hidden": 256}
    made = make_tiny_model(tmp_path / "model", **four_bits) if stored == "q4_1" else None
    model = made or make_family(tmp_path / "model", name)
    result = run(model, gguf=True, gguf_type=stored)
    assert result.gguf is not None
    server, loaded = _llama_cpp(result.gguf.path), load(result.path)
    worst, compared, differing = 0.0, 0, 0
    for question in QUESTIONS:
        turns = [{"role": "user", "content": question}]
        text = loaded.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
        prompt = encode_prompt(loaded.tokenizer, turns)
        assert _post(server, "tokenize", content=text, parse_special=True)["tokens"] == prompt
        answer = agreement._greedy(loaded.model, prompt)
        logits = agreement._logits(loaded.model, [Probe(prompt, answer)])
        ours = logits - mx.logsumexp(logits, -1, keepdims=True)
        for place, token in enumerate(answer):
            asked = {"prompt": prompt + answer[:place], "n_predict": 1, "n_probs": 3}
            told = _post(server, "completion", temperature=0, **asked)
            for found in told.get("completion_probabilities", ()):  # none within a character
                compared += 1
                margin: Any = (ours[place, token] - ours[place, found["id"]]).item()
                differing += margin > agreement.TIE
                for top in found["top_logprobs"]:
                    mine: Any = ours[place, top["id"]].item()
                    worst = max(worst, abs(top["logprob"] - mine))
    print(f"\n{name} {stored}: {compared - differing} of {compared} tokens, worst {worst:.4f}")
    assert compared >= 20
    assert worst < TIE[stored]
    assert stored != "f16" or not differing


def _llama_cpp(file: str) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.n_ctx = CONTEXT
    parameters.warmup = False
    parameters.cpuparams.n_threads = 1
    return xllamacpp.Server(parameters)


def _post(server: Any, call: str, **fields: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{server.listening_address}/{call}", json.dumps(fields).encode(), headers
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())

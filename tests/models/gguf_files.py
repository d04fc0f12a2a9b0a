"""Writes small GGUF files, from ggml's own description of the format, to convert in tests.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3, and ggml-quants.c for the
blocks. Nothing here is shared with the code under test.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

_TENSOR_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8}
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7}
_ALIGNMENT = 32
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def export(model: Path, file: Path, kind: str = "Q4_1", **changes: Any) -> dict[str, np.ndarray]:
    """Write the float model folder as GGUF, as llama.cpp's converter would.

    `changes` replaces metadata by key (dots written as two underscores; None leaves it out) or adds
    tensors (`tensor__NAME`). Returns what each matrix holds once unpacked, by mlx-lm's names.
    """
    config = json.loads((model / "config.json").read_text())
    weights = {k: np.array(v) for k, v in mx.load(str(model / "model.safetensors")).items()}
    tensors, unpacked = {}, {}
    for name, weight in weights.items():
        ggml_name = _ggml_name(name)
        packing = kind if weight.ndim == 2 else "F32"
        blocks, values = _pack(_permuted(name, weight, config), packing)
        tensors[ggml_name] = (weight.shape, packing, blocks)
        unpacked[name] = _unpermuted(name, values, config)
    metadata = _metadata(config, model, kind)
    for key, value in changes.items():
        if key.startswith("tensor__"):
            tensors[key.removeprefix("tensor__")] = (value.shape, "F32", value.tobytes())
        else:
            metadata[key.replace("__", ".")] = value
    _write(file, {k: v for k, v in metadata.items() if v is not None}, tensors)
    return unpacked


def _ggml_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{_NAMES[part]}.weight"


def _permuted(name: str, weight: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """`LlamaModel.permute` of convert_hf_to_gguf.py."""
    heads = _heads(name, config)
    if not heads:
        return weight
    rows, columns = weight.shape
    split = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(rows, columns))


def _unpermuted(name: str, weight: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    heads = _heads(name, config)
    if not heads:
        return weight
    order = _permuted(name, np.arange(weight.shape[0], dtype=np.float32)[:, None], config)
    original = np.empty_like(weight)
    original[order[:, 0].astype(int)] = weight
    return original


def _heads(name: str, config: dict[str, Any]) -> int:
    if "q_proj" in name:
        return int(config["num_attention_heads"])
    return int(config["num_key_value_heads"]) if "k_proj" in name else 0


def _pack(weight: np.ndarray, kind: str) -> tuple[bytes, np.ndarray]:
    """The bytes ggml stores, and the values they stand for."""
    if kind == "F32":
        return weight.astype("<f4").tobytes(), weight
    if kind == "F16":
        half = weight.astype("<f2")
        return half.tobytes(), half.astype(np.float32)
    groups = weight.reshape(-1, 32)
    if kind == "Q8_0":
        scale = (np.abs(groups).max(1, keepdims=True) / 127).astype("<f2")
        whole = np.round(groups / scale.astype(np.float32)).clip(-127, 127).astype(np.int8)
        packed = b"".join(s.tobytes() + q.tobytes() for s, q in zip(scale, whole, strict=True))
        return packed, (whole * scale.astype(np.float32)).reshape(weight.shape)
    low = groups.min(1, keepdims=True) if kind == "Q4_1" else None
    return _pack_nibbles(weight.shape, groups, low)


def _pack_nibbles(
    shape: tuple[int, ...], groups: np.ndarray, low: np.ndarray | None
) -> tuple[bytes, np.ndarray]:
    if low is None:  # Q4_0: values -8..7 around zero
        scale = (np.abs(groups).max(1, keepdims=True) / 8).astype("<f2")
        offset = -8 * scale.astype(np.float32)
        head = [scale]
    else:  # Q4_1: values 0..15 above the minimum
        scale = ((groups.max(1, keepdims=True) - low) / 15).astype("<f2")
        offset = low.astype("<f2").astype(np.float32)
        head = [scale, low.astype("<f2")]
    wide = scale.astype(np.float32)
    whole = np.round((groups - offset) / wide).clip(0, 15).astype(np.uint8)
    nibbles = whole[:, :16] | (whole[:, 16:] << 4)
    rows = zip(*head, nibbles, strict=True)
    return b"".join(b"".join(p.tobytes() for p in row) for row in rows), (
        whole * wide + offset
    ).reshape(shape)


def _metadata(config: dict[str, Any], model: Path, kind: str) -> dict[str, Any]:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    special = {token["content"] for token in tokenizer["added_tokens"]}
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    template = json.loads((model / "tokenizer_config.json").read_text())["chat_template"]
    return {
        "general.architecture": "llama",
        "general.file_type": _FILE_TYPES[kind],
        "general.license": "apache-2.0",
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "llama.rope.freq_base": config["rope_theta"],
        "llama.rope.dimension_count": config["head_dim"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in vocabulary],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in tokenizer["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
        "tokenizer.ggml.padding_token_id": config["pad_token_id"],
        "tokenizer.chat_template": template,
    }


def _write(file: Path, metadata: dict[str, Any], tensors: dict[str, Any]) -> None:
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    head += [_string(key) + _value(value) for key, value in metadata.items()]
    body = bytearray()
    for name, (shape, kind, data) in tensors.items():
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        kind_and_offset = struct.pack("<IQ", _TENSOR_TYPES[kind], len(body))
        head.append(_string(name) + dimensions + kind_and_offset)
        body += data + bytes(-len(data) % _ALIGNMENT)
    start = b"".join(head)
    file.write_bytes(start + bytes(-len(start) % _ALIGNMENT) + body)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        kind, _ = _typed(value[0])
        return struct.pack("<IIQ", 9, kind, len(value)) + b"".join(_typed(v)[1] for v in value)
    kind, data = _typed(value)
    return struct.pack("<I", kind) + data


def _typed(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    return 8, _string(value)

"""Reads a llama-architecture GGUF file into mlx-lm's names, shapes and configuration.

The format is ggml's (docs/gguf.md there). `mx.load` unpacks it and returns quantized tensors in
MLX's form: groups of 32 weights packed in uint32, with a scale and a bias each.

What is not covered: other architectures, k-quants (MLX would silently convert them to float16),
RoPE scaling, mixtures of experts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from safetrain_shared.errors import InvalidInput

GROUP_SIZE = 32
"""Weights that share a scale in Q4_0, Q4_1 and Q8_0 (ggml's block size)."""

_FILE_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0"}
"""`general.file_type` → name, from llama.cpp's `enum llama_ftype`."""

_WHOLE_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)")


@dataclass(frozen=True)
class Gguf:
    """A GGUF file as MLX reads it: arrays by ggml's names, and the metadata as Python values."""

    weights: dict[str, mx.array]
    metadata: dict[str, Any]

    def need(self, key: str) -> Any:
        """Return the metadata under `key`, or raise InvalidInput naming it."""
        if key not in self.metadata:
            raise InvalidInput("gguf.incomplete", missing=key)
        return self.metadata[key]

    def llama(self, key: str) -> Any:
        """Return the hyperparameter `llama.KEY`."""
        return self.need(f"llama.{key}")


def read_gguf(file: Path) -> Gguf:
    """Read `file` lazily. Raises InvalidInput for what can't be converted faithfully."""
    try:
        with file.open("rb") as start:
            magic = start.read(4)
        if magic != b"GGUF":
            raise InvalidInput("gguf.not_gguf", path=str(file))
        loaded: Any = mx.load(str(file), format="gguf", return_metadata=True)
        weights, metadata = loaded
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidInput("gguf.unreadable", path=str(file)) from error
    gguf = Gguf(weights, {key: _plain(value) for key, value in metadata.items()})
    architecture = gguf.need("general.architecture")
    if architecture != "llama":
        raise InvalidInput("gguf.architecture", architecture=str(architecture))
    file_type = gguf.metadata.get("general.file_type", 0)
    if file_type not in _FILE_TYPES:
        supported = ", ".join(_FILE_TYPES.values())
        raise InvalidInput("gguf.quantization", file_type=file_type, supported=supported)
    return gguf


def model_config(gguf: Gguf, dtype: mx.Dtype = mx.float16) -> dict[str, Any]:
    """Return `config.json` for mlx-lm's (and transformers') llama, computing in `dtype`."""
    heads = gguf.llama("attention.head_count")
    hidden = gguf.llama("embedding_length")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": gguf.llama("feed_forward_length"),
        "num_hidden_layers": gguf.llama("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": gguf.metadata.get("llama.attention.head_count_kv", heads),
        "head_dim": gguf.metadata.get("llama.rope.dimension_count", hidden // heads),
        "hidden_act": "silu",
        "rms_norm_eps": float(f"{gguf.llama('attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": gguf.metadata.get("llama.rope.freq_base", 10000.0),
        "max_position_embeddings": gguf.llama("context_length"),
        "vocab_size": len(gguf.need("tokenizer.ggml.tokens")),
        "tie_word_embeddings": "output.weight" not in gguf.weights,
        "torch_dtype": str(dtype).removeprefix("mlx.core."),
    }
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        token = gguf.metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        if token is not None:
            config[f"{ours}_token_id"] = token
    if bits := _bits(gguf):
        config["quantization"] = {"group_size": GROUP_SIZE, "bits": bits}
        config["quantization_config"] = config["quantization"]
    return config


def model_weights(
    gguf: Gguf, config: dict[str, Any], dtype: mx.Dtype = mx.float16
) -> dict[str, mx.array]:
    """Return the weights by mlx-lm's names: matrices still packed (uint32, with scales and biases),
    everything else in `dtype`.

    GGUF mixes float16 scales with float32 norms; without one type for all, every activation would
    be computed in the wider one.
    """
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for name, array in gguf.weights.items():
        stem, _, leaf = name.rpartition(".")
        if array.dtype != mx.uint32:
            array = array.astype(dtype)
        block = _BLOCK.fullmatch(stem)
        if block and block[2] in heads:
            array = _unpermute(array, heads[block[2]])
        weights[f"{_name(stem, leaf)}.{leaf}"] = array
    return weights


def _name(stem: str, leaf: str) -> str:
    block = _BLOCK.fullmatch(stem)
    if leaf in ("weight", "scales", "biases"):
        if stem in _WHOLE_NAMES:
            return _WHOLE_NAMES[stem]
        if block and block[2] in _BLOCK_NAMES:
            return f"model.layers.{block[1]}.{_BLOCK_NAMES[block[2]]}"
    raise InvalidInput("gguf.tensor", name=f"{stem}.{leaf}")


def _unpermute(rows: mx.array, heads: int) -> mx.array:
    """Reorder the rows of a query or key matrix as transformers and mlx-lm have them.

    llama.cpp's converter interleaves the two halves of each head (`permute` in
    convert_hf_to_gguf.py) for its own form of RoPE. Scales and biases are stored by row too, so a
    packed matrix is reordered without unpacking it.
    """
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return mx.contiguous(pairs.swapaxes(1, 2).reshape(rows.shape))


def _bits(gguf: Gguf) -> int | None:
    """Return the bits per weight of the first block's matrices; None where they are floats."""
    packed = gguf.weights.get("blk.0.ffn_down.weight")
    if packed is None:
        raise InvalidInput("gguf.incomplete", missing="blk.0.ffn_down.weight")
    if packed.dtype != mx.uint32:
        return None
    return 32 * packed.shape[-1] // int(gguf.llama("feed_forward_length"))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, mx.array) else value

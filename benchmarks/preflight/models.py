"""Models of many shapes with random weights, a small tokenizer, and data, made on the spot."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

_LETTERS = "abcdefghijklmnopqrstuvwxyz "
_COMMON: Mapping[str, Any] = {
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """One model: mlx-lm's module, what its config says, and how its weights are kept."""

    name: str
    module: str
    config: Mapping[str, Any]
    dtype: str = "float32"
    bits: int = 0


def _shape(
    module: str, sizes: tuple[int, ...], dtype: str = "float32", bits: int = 0, **more: Any
) -> Shape:
    """`sizes`: hidden, intermediate, layers, heads, key-value heads, vocabulary."""
    names: tuple[str, ...] = ("hidden_size", "intermediate_size", "num_hidden_layers")
    names += ("num_attention_heads", "num_key_value_heads", "vocab_size")
    config = {**_COMMON, "model_type": module, **dict(zip(names, sizes, strict=True)), **more}
    kept = f"{bits} bits" if bits else dtype
    return Shape(f"{config['model_type']} {sizes[-1] // 1000}k {kept}", module, config, dtype, bits)


# A hybrid: short convolutions, and attention in every third layer.
_LFM2: Mapping[str, Any] = {
    "norm_eps": 1e-5,
    "conv_bias": False,
    "conv_L_cache": 3,
    "block_dim": 256,
    "block_ff_dim": 768,
    "block_multiple_of": 32,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": False,
    "full_attn_idxs": [2, 5],
}
_EXPERTS: Mapping[str, Any] = {
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 256,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}

SHAPES = (
    _shape("llama", (256, 704, 6, 4, 2, 1000)),
    _shape("llama", (512, 1408, 8, 8, 4, 16000), bits=4),
    _shape("llama", (768, 2048, 6, 12, 4, 32000), model_type="mistral", tie_word_embeddings=False),
    _shape("qwen2", (384, 1536, 8, 6, 2, 150000)),
    _shape("qwen3", (512, 1536, 6, 8, 4, 50000), head_dim=64),
    _shape("gemma", (512, 2048, 6, 8, 1, 64000), head_dim=64),
    _shape("gemma2", (384, 1536, 6, 6, 3, 64000), head_dim=64, query_pre_attn_scalar=64),
    _shape("phi3", (640, 1728, 6, 10, 10, 32064), tie_word_embeddings=False),
    _shape("phi", (512, 2048, 6, 8, 8, 51200), partial_rotary_factor=0.5, layer_norm_eps=1e-5),
    _shape("qwen2", (256, 768, 4, 4, 2, 32000), dtype="bfloat16"),
    _shape("lfm2", (256, 768, 6, 4, 2, 16000), **_LFM2),
    _shape("qwen3_moe", (256, 768, 4, 4, 2, 16000), head_dim=64, **_EXPERTS),
)


def make_model(shape: Shape, folder: Path) -> Path:
    """Writes a model folder that mlx-lm loads; the weights are random, the same each time."""
    folder.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(f"mlx_lm.models.{shape.module}")
    mx.random.seed(0)
    model = module.Model(module.ModelArgs.from_dict(dict(shape.config)))
    model.set_dtype(getattr(mx, shape.dtype))
    config = dict(shape.config)
    if shape.bits:
        nn.quantize(model, group_size=32, bits=shape.bits)
        config["quantization"] = {"group_size": 32, "bits": shape.bits}
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder)
    return folder


def make_data(folder: Path, draw: random.Random, samples: int, longest: int) -> tuple[Path, Path]:
    """Plain text of random letters, a token each: up to `longest` tokens, most of them short."""
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "train.jsonl", folder / "valid.jsonl"
    for file, count in zip(files, (samples, max(2, samples // 8)), strict=True):
        lines = [json.dumps({"text": _text(draw, longest)}) for _ in range(count)]
        file.write_text("".join(f"{line}\n" for line in lines))
    return files


def _text(draw: random.Random, longest: int) -> str:
    return "".join(draw.choices(_LETTERS, k=max(8, int(longest * draw.random() ** 2) - 2)))


def _write_tokenizer(folder: Path) -> None:
    """One token a byte: what every architecture's tokenizer makes of its file."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {"<pad>": 0, "<eos>": 1, **{letter: n for n, letter in enumerate(alphabet, 2)}}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))

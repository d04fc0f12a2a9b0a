"""A tiny model of each family that is written as GGUF, as its own architecture computes it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers

from safetraind.worker.export import gguf_vocabulary
from tests.tiny import EOS, PAD, make_tokenizer

VOCABULARY = 512
_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
_GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# What each family's configuration has beyond `_COMMON`, and how its tokenizer splits text.
FAMILIES: dict[str, tuple[dict[str, Any], str]] = {
    "llama": ({"model_type": "llama", "tie_word_embeddings": False}, "gpt-2"),
    "llama-3.1": ({"model_type": "llama", "rope_scaling": _LLAMA3}, "llama-bpe"),
    "mistral": ({"model_type": "mistral"}, "spaced"),
    "qwen2": ({"model_type": "qwen2"}, "qwen2"),
    "qwen3": ({"model_type": "qwen3", "head_dim": 32}, "qwen2"),
    # mlx-lm computes Gemma 2 without its sliding window, which has 4096 tokens.
    "gemma2": ({"model_type": "gemma2", **_GEMMA, "sliding_window": 4096}, "sentencepiece"),
    "gemma3": (
        {"model_type": "gemma3_text", **_GEMMA, "sliding_window": 64, "num_hidden_layers": 7},
        "sentencepiece",
    ),
    "phi3": ({"model_type": "phi3", "num_key_value_heads": 4}, "spaced"),
    "smollm3": ({"model_type": "smollm3"}, "llama-bpe"),
}


def make_family(folder: Path, name: str, **changes: Any) -> Path:
    """Write a model of the family with drawn weights, and return its folder."""
    own, splits = FAMILIES[name]
    config = {**_COMMON, **own, **changes}
    kind = {"mistral": "llama"}.get(config["model_type"], config["model_type"])
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    model = module.Model(module.ModelArgs.from_dict(config))
    names = sorted(dict(tree_flatten(model.parameters())).items())
    keys = mx.random.split(mx.random.key(len(names)), len(names))
    weights = {name: _drawn(name, old, key) for (name, old), key in zip(names, keys, strict=True)}
    model.update(tree_unflatten(list(weights.items())))
    folder.mkdir(parents=True)
    if config["tie_word_embeddings"]:
        weights.pop("lm_head.weight", None)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    make_tokenizer(folder, VOCABULARY)
    _split_as(folder / "tokenizer.json", splits)
    return folder


def _drawn(name: str, old: mx.array, key: mx.array) -> mx.array:
    """Norms and biases that are not what they begin as: one that is lost or misplaced shows."""
    if old.ndim == 1:
        return old + 0.3 * mx.random.normal(old.shape, key=key)
    return mx.random.normal(old.shape, scale=old.shape[-1] ** -0.5, key=key)


def _split_as(file: Path, splits: str) -> None:
    """Make the tiny byte-level tokenizer one that splits text as the family's does."""
    tokenizer = Tokenizer.from_file(str(file))
    if splits in ("llama-bpe", "qwen2"):
        patterns = {name: text for text, name in gguf_vocabulary._BY_PATTERN.items()}
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(patterns[splits]), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.save(str(file))
    elif splits in ("spaced", "sentencepiece"):
        _as_sentencepiece(file, prefix=splits == "spaced")


def _as_sentencepiece(file: Path, *, prefix: bool) -> None:
    """Replace the vocabulary by one with byte fallback, whose spaces are ▁."""
    data = json.loads(file.read_text(encoding="utf-8"))
    special = [token["content"] for token in data["added_tokens"]]
    tokens = [*special, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = "▁abcdefghijlmnopqrstuvxzABCEFGHJLMNOPQRSTãáâàéêíóõúç.,?0123456789"
    pairs = [
        "▁ o",
        "▁ d",
        "e s",
        "a r",
        "▁d o",
        "▁ F",
        "▁F ar",
        "e n",
        "en s",
        "▁ c",
        "o r",
        "▁c l",
    ]
    merges = [pair.split(" ") for pair in pairs]
    tokens += [*letters, *("".join(pair) for pair in merges)]
    data["model"] = {
        "type": "BPE",
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": merges,
        "unk_token": "<unk>",
        "byte_fallback": True,
        "fuse_unk": True,
    }
    file.write_text(json.dumps(data), encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(file))
    steps = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = None  # type: ignore[assignment]
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.save(str(file))

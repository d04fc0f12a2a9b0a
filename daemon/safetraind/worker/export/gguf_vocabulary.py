"""A model folder's tokenizer as GGUF metadata: tokens, kinds, merges, and how text is split.

Only what llama.cpp is known to do alike: byte-level BPE with a way of splitting from its own list,
and sentencepiece BPE with byte fallback. A guess would cost a little quality everywhere and show
nowhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mlx.core as mx

from safetrain_shared.errors import InvalidInput
from safetraind.storage.durable import read_json

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
"""`enum llama_token_type` of llama.cpp."""

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_NO_MERGE = -1e4
"""The score of a token that no merge makes."""

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def vocabulary(folder: Path, size: int) -> dict[str, Any]:
    """The metadata for the tokenizer in `folder`, filled up to `size` tokens with unused ones.

    Tokens beyond `size`, for which the model has no row, are left out. Raises InvalidInput for a
    tokenizer that llama.cpp would read otherwise, or that is none.
    """
    tokenizer = read_json(folder / "tokenizer.json")
    try:
        return _vocabulary(tokenizer, size)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput("export.gguf_tokenizer", found="tokenizer.json") from error


def _vocabulary(tokenizer: dict[str, Any], size: int) -> dict[str, Any]:
    model = tokenizer["model"]
    if model.get("type", "BPE") != "BPE":
        raise InvalidInput("export.gguf_tokenizer", found=model["type"])
    tokens, kinds = _tokens(tokenizer, size)
    metadata = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": mx.array(kinds, mx.int32),
    }
    merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    if model.get("byte_fallback"):
        scores = mx.array(_scores(tokens, merges), mx.float32)
        return {**metadata, "tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": scores}
    return {
        **metadata,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _splitting(tokenizer.get("pre_tokenizer")),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
    }


def _tokens(tokenizer: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Text and kind of each token, by its number."""
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [_UNUSED] * size
    unknown = tokenizer["model"].get("unk_token")
    fallback = tokenizer["model"].get("byte_fallback")
    for text, number in tokenizer["model"]["vocab"].items():
        if number >= size:
            continue
        tokens[number] = text
        is_byte = fallback and _BYTE_TOKEN.fullmatch(text)
        kinds[number] = _BYTE if is_byte else _UNKNOWN if text == unknown else _NORMAL
    for added in tokenizer.get("added_tokens", ()):
        if added["id"] >= size:
            continue
        tokens[added["id"]] = added["content"]
        if added["content"] != unknown:
            kinds[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    return tokens, kinds


def _scores(tokens: list[str], merges: list[tuple[str, ...]]) -> list[float]:
    """llama.cpp merges the pair with the highest score first: minus the rank of the merge."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks[token]) if token in ranks else _NO_MERGE for token in tokens]


def _splitting(found: Any) -> str:
    """llama.cpp's name for how text is cut before the merges."""
    parts = (found or {}).get("pretokenizers", [found]) if found else []
    kinds = [part["type"] for part in parts]
    whole = parts and parts[-1].get("use_regex", True) and not parts[-1].get("add_prefix_space")
    if kinds == ["ByteLevel"] and whole:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and whole and parts[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and parts[0]["pattern"].get("Regex") == _LLAMA3:
        return "llama-bpe"
    raise InvalidInput("export.gguf_tokenizer", found=" + ".join(kinds) or "–")

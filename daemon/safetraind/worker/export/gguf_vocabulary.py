"""Converts a model folder's tokenizer to GGUF metadata: tokens, types, merges, pre-tokenizer.

Covers only what llama.cpp is known to do alike: byte-level BPE with a pre-tokenizer from its own
list, and sentencepiece BPE with byte fallback. Anything else is refused, because a wrong tokenizer
would lower the quality of every answer without an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mlx_lm.gguf import TokenType

from safetrain_shared.errors import InvalidInput
from safetraind.storage.durable import read_json

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_NO_MERGE = -1e4
"""The score of a token that is not the result of a merge."""

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_BY_PATTERN = {_LLAMA3: "llama-bpe", _QWEN2: "qwen2"}
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # sentencepiece's sign for one


def vocabulary(folder: Path, size: int) -> dict[str, Any]:
    """Return the metadata for the tokenizer in `folder`, padded to `size` with unused tokens.

    Tokens beyond `size`, for which the model has no embedding, are left out. Raises InvalidInput
    for a tokenizer that llama.cpp would read differently, or that is invalid.
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
        "tokenizer.ggml.token_type": kinds,
    }
    merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    if model.get("byte_fallback"):
        return {
            **metadata,
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.scores": _scores(tokens, merges),
            "tokenizer.ggml.add_space_prefix": _begins_with_space(tokenizer),
        }
    return {
        **metadata,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _pre_tokenizer(tokenizer.get("pre_tokenizer")),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
    }


def _tokens(tokenizer: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Return the text and the type of each token, by its number."""
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds: list[int] = [TokenType.UNUSED] * size
    unknown = tokenizer["model"].get("unk_token")
    fallback = tokenizer["model"].get("byte_fallback")
    for text, number in tokenizer["model"]["vocab"].items():
        if number >= size:
            continue
        tokens[number] = text
        is_byte = fallback and _BYTE_TOKEN.fullmatch(text)
        plain = TokenType.UNKNOWN if text == unknown else TokenType.NORMAL
        kinds[number] = TokenType.BYTE if is_byte else plain
    for added in tokenizer.get("added_tokens", ()):
        if added["id"] >= size:
            continue
        tokens[added["id"]] = added["content"]
        if added["content"] != unknown:
            special = added["special"]
            kinds[added["id"]] = TokenType.CONTROL if special else TokenType.USER_DEFINED
    return tokens, kinds


def _scores(tokens: list[str], merges: list[tuple[str, ...]]) -> list[float]:
    """Return the tokens' scores, minus the rank of each one's merge: llama.cpp merges the highest
    first.
    """
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks[token]) if token in ranks else _NO_MERGE for token in tokens]


def _pre_tokenizer(found: Any) -> str:
    """Return llama.cpp's name of the pre-tokenizer. Raises InvalidInput for an unknown one."""
    parts = (found or {}).get("pretokenizers", [found]) if found else []
    kinds = [part["type"] for part in parts]
    whole = parts and parts[-1].get("use_regex", True) and not parts[-1].get("add_prefix_space")
    if kinds == ["ByteLevel"] and whole:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and whole and parts[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        name = _BY_PATTERN.get(parts[0]["pattern"].get("Regex"))
        if name is not None:
            return name
    raise InvalidInput("export.gguf_tokenizer", found=" + ".join(kinds) or "–")


def _begins_with_space(tokenizer: dict[str, Any]) -> bool:
    """Return whether a text is encoded as if a space stood before it."""
    normalizer, found = tokenizer.get("normalizer") or {}, tokenizer.get("pre_tokenizer") or {}
    steps = [*normalizer.get("normalizers", [normalizer]), *found.get("pretokenizers", [found])]
    return any(
        (step.get("type") == "Prepend" and step.get("prepend") == _SPACE)
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )

"""A tokenizer as GGUF tells it: numbers kept, kinds right, merges in their order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.errors import InvalidInput
from safetraind.worker.export.gguf_vocabulary import vocabulary

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def written(folder: Path, **changes: Any) -> Path:
    """A sentencepiece-like tokenizer of seven tokens, or another by `changes`."""
    vocab = {"<unk>": 0, "<s>": 1, "<0x41>": 2, "▁f": 3, "▁fa": 4, "▁": 5, "f": 6}
    tokenizer = {
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": [["▁", "f"], ["▁f", "a"]],
            "unk_token": "<unk>",
            "byte_fallback": True,
        },
        "added_tokens": [
            {"id": 0, "content": "<unk>", "special": True},
            {"id": 1, "content": "<s>", "special": True},
            {"id": 7, "content": "<tool>", "special": False},
        ],
        **changes,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def test_a_sentencepiece_tokenizer_is_told_with_its_merge_order(tmp_path: Path) -> None:
    told = vocabulary(written(tmp_path), 9)
    assert told["tokenizer.ggml.model"] == "llama"
    assert told["tokenizer.ggml.tokens"][7:] == ["<tool>", "[PAD8]"]
    kinds = [UNKNOWN, CONTROL, BYTE, NORMAL, NORMAL, NORMAL, NORMAL, USER_DEFINED, UNUSED]
    assert told["tokenizer.ggml.token_type"] == kinds
    scores = told["tokenizer.ggml.scores"]
    assert scores[3] > scores[4] > max(scores[5:])


@pytest.mark.parametrize(
    ("pre_tokenizer", "name"),
    [
        ({"type": "ByteLevel", "add_prefix_space": False}, "gpt-2"),
        (
            {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Digits", "individual_digits": True},
                    {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
                ],
            },
            "smollm",
        ),
    ],
)
def test_a_byte_level_tokenizer_is_told_with_how_it_splits(
    tmp_path: Path, pre_tokenizer: dict[str, Any], name: str
) -> None:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
    told = vocabulary(written(tmp_path, model=model, pre_tokenizer=pre_tokenizer), 8)
    assert told["tokenizer.ggml.model"] == "gpt2"
    assert told["tokenizer.ggml.pre"] == name
    assert told["tokenizer.ggml.merges"] == ["a b"]


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "Unigram", "vocab": []}},
        {
            "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True},
        },
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "pre_tokenizer": None},
    ],
)
def test_one_that_would_be_read_otherwise_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput, check=lambda e: e.code == "export.gguf_tokenizer"):
        vocabulary(written(tmp_path, **changes), 8)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, check=lambda e: e.code == "export.gguf_tokenizer"):
        vocabulary(tmp_path, 8)

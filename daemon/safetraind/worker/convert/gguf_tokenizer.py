"""Rebuilds the tokenizer in a GGUF file as the files that `tokenizers` and mlx-lm read.

Covers only byte-level BPE (`tokenizer.ggml.model` = gpt2) with a known pre-tokenizer. Anything else
is refused, because a wrong tokenizer would lower the quality of every answer without an error.
"""

from __future__ import annotations

from typing import Any

from mlx_lm.gguf import TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.pre_tokenizers import PreTokenizer

from safetrain_shared.errors import InvalidInput
from safetraind.worker.convert.gguf_reader import Gguf


def build_tokenizer(gguf: Gguf) -> Tokenizer:
    """Return the tokenizer of `gguf`, with the ids of the file's token list. Raises InvalidInput
    for a tokenizer that cannot be converted.
    """
    kind = gguf.need("tokenizer.ggml.model")
    if kind != "gpt2":
        raise InvalidInput("gguf.tokenizer", found=kind, supported="gpt2")
    tokens: list[str] = gguf.need("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in gguf.need("tokenizer.ggml.merges")]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise InvalidInput("gguf.vocabulary")
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = _pre_tokenizer(gguf.metadata.get("tokenizer.ggml.pre", "gpt-2"))
    tokenizer.decoder = decoders.ByteLevel()
    types = gguf.need("tokenizer.ggml.token_type")
    tokenizer.add_special_tokens(_of_type(tokens, types, TokenType.CONTROL, special=True))
    tokenizer.add_tokens(_of_type(tokens, types, TokenType.USER_DEFINED, special=False))
    if gguf.metadata.get("tokenizer.ggml.add_bos_token", False):
        bos = gguf.need("tokenizer.ggml.bos_token_id")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)]
        )
    return tokenizer


def tokenizer_config(gguf: Gguf) -> dict[str, Any]:
    """Return `tokenizer_config.json`: the special tokens by role and the chat template."""
    tokens = gguf.need("tokenizer.ggml.tokens")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": gguf.llama("context_length"),
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = gguf.metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        if number is not None:
            config[f"{ours}_token"] = tokens[number]
    if template := gguf.metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config


def _pre_tokenizer(name: str) -> PreTokenizer:
    """Return the pre-tokenizer of this name in llama.cpp (its `llm_tokenizer_bpe`)."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "gpt-2":
        return byte_level
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    raise InvalidInput("gguf.tokenizer", found=name, supported="smollm, gpt-2")


def _of_type(
    tokens: list[str], types: list[int], wanted: int, *, special: bool
) -> list[AddedToken]:
    chosen = [token for token, kind in zip(tokens, types, strict=True) if kind == wanted]
    return [AddedToken(token, normalized=False, special=special) for token in chosen]

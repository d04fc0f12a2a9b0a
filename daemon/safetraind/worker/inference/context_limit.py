"""The limit on prompt and answer together, in tokens, by the model and by the free memory.

An answer needs the keys and values of all its tokens, which mlx-lm's cache allocates in steps, and
during the prefill, which computes the prompt in parts, one layer's activations and attention
scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREFILL_TOKENS = 512
"""Prompt tokens computed at once; bounds the memory of attention scores on a CPU."""

_CACHE_STEP = 256
"""Tokens by which `mlx_lm.models.cache.KVCache` grows; old and new arrays exist while it does."""

_LOGIT_COPIES = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a model that the memory and length of an answer depend on.

    `item_bytes`: size of the type that the model computes in. `positions`: the longest sequence in
    tokens, 0 if the configuration doesn't say.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    intermediate: int
    vocabulary: int
    item_bytes: int
    positions: int = 0

    @property
    def token_bytes(self) -> int:
        """Bytes of the keys and values of one token, in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.item_bytes


def shape_of(config: Mapping[str, Any], item_bytes: int) -> Shape:
    """Return the shape in a model's config.json. A missing number is 0."""
    text = {**config, **(config.get("text_config") or {})}
    hidden, heads = int(text.get("hidden_size") or 0), int(text.get("num_attention_heads") or 0)
    return Shape(
        layers=int(text.get("num_hidden_layers") or 0),
        heads=heads,
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=int(text.get("head_dim") or hidden // max(heads, 1)),
        hidden=hidden,
        intermediate=int(text.get("intermediate_size") or 4 * hidden),
        vocabulary=int(text.get("vocab_size") or 0),
        item_bytes=item_bytes,
        positions=int(text.get("max_position_embeddings") or 0),
    )


def answer_bytes(shape: Shape, tokens: int) -> int:
    """Return the peak memory in bytes of an answer, with `tokens` in prompt and answer together.

    A layer's activations take 3 times the MLP's width and 6 times the hidden size a token
    (measured).
    """
    steps = -(-tokens // _CACHE_STEP) + 1
    part = min(tokens, PREFILL_TOKENS)
    scores = shape.heads * part * tokens
    activations = part * (3 * shape.intermediate + 6 * shape.hidden)
    logits = _LOGIT_COPIES * shape.vocabulary
    temporary = (scores + activations + logits) * shape.item_bytes
    return steps * _CACHE_STEP * shape.token_bytes + temporary


def longest(shape: Shape, room: int, most: int) -> int:
    """Return the number of tokens that fit into `room` bytes, at most `most` and the model's
    limit.
    """
    fits, beyond = 0, min(most, shape.positions or most) + 1
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if answer_bytes(shape, middle) <= room:
            fits = middle
        else:
            beyond = middle
    return fits

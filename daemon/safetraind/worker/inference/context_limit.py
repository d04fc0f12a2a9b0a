"""How long a question and its answer may be together: as long as the model takes, and as their
memory fits what is left.

An answer needs keys and values of all its tokens, which mlx-lm's cache allocates in steps, and
while the prompt is computed, a part at a time, one layer's activations and attention scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREFILL_TOKENS = 512
"""Prompt tokens computed at once; bounds the memory of attention scores on a CPU."""

_CACHE_STEP = 256
"""Tokens by which `mlx_lm.models.cache.KVCache` grows; while it does, the old part is there too."""

_LOGIT_COPIES = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """What an answer's memory and length depend on; `item_bytes`: of a number the model computes
    with; `positions`: how many tokens the model takes, 0 where it doesn't tell.
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
        """Keys and values of one token, in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.item_bytes


def shape_of(config: Mapping[str, Any], item_bytes: int) -> Shape:
    """The shape in a model's config.json. What it does not tell counts nothing."""
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


def needed(shape: Shape, tokens: int) -> int:
    """Bytes at the peak of an answer, prompt and answer being `tokens` together.

    A layer's activations: 3 times the MLP's width and 6 the hidden size, a token (measured).
    """
    steps = -(-tokens // _CACHE_STEP) + 1
    part = min(tokens, PREFILL_TOKENS)
    scores = shape.heads * part * tokens
    activations = part * (3 * shape.intermediate + 6 * shape.hidden)
    logits = _LOGIT_COPIES * shape.vocabulary
    passing = (scores + activations + logits) * shape.item_bytes
    return steps * _CACHE_STEP * shape.token_bytes + passing


def longest(shape: Shape, room: int, most: int) -> int:
    """How many tokens, at most `most` and what the model takes, fit into `room` bytes."""
    fits, beyond = 0, min(most, shape.positions or most) + 1
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if needed(shape, middle) <= room:
            fits = middle
        else:
            beyond = middle
    return fits

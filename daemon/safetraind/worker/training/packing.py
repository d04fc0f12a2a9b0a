"""Rows of several samples: each sees only itself, and counts its positions from zero."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

from safetrain_shared.errors import InvalidSetting

ROPE = "rope"  # what mlx-lm's models call the module that turns queries and keys by their positions


class Positions:
    """The positions of the rows that pass through the model now, (B, T); None: as they come."""

    def __init__(self) -> None:
        self.now: mx.array | None = None


class PackedRope(nn.Module):
    """A rotary embedding that takes each token's position from the rows, not from its place."""

    def __init__(self, rope: nn.Module, positions: Positions) -> None:
        super().__init__()
        self.inner, self._positions = rope, positions

    def __call__(self, x: mx.array, offset: Any = 0) -> mx.array:
        """Turns `x` (B, heads, T, D); every token is handed on as a row with its own offset."""
        positions = self._positions.now
        if positions is None:
            return self.inner(x, offset=offset)
        rows, heads, width, size = x.shape
        single = x.transpose(0, 2, 1, 3).reshape(rows * width, heads, 1, size)
        turned = self.inner(single, offset=positions.reshape(-1))
        return turned.reshape(rows, width, heads, size).transpose(0, 2, 1, 3)


class PackedRows:
    """Stands where a model takes a cache, and gives the block-diagonal causal mask.

    mlx-lm's models ask their cache for the mask and hand it their keys and values; this one gives
    them back as they are.
    """

    offset = 0

    def __init__(self, segments: mx.array) -> None:
        """`segments` (B, T): the number of the sample that each token belongs to."""
        self._segments = segments

    def make_mask(
        self, width: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array:
        """Which keys each query sees, bool, (B, 1, T, T)."""
        place = mx.arange(width)
        back = place[:, None] - place[None]
        seen = back >= 0 if window_size is None else (back >= 0) & (back < window_size)
        same = self._segments[:, :, None] == self._segments[:, None, :]
        return (same & seen)[:, None]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """The keys and values themselves."""
        return keys, values


def prepare(model: nn.Module) -> Positions:
    """Makes `model` ready for packed rows; returns the holder of their positions.

    Raises InvalidSetting for a model in which samples would see each other: one with memory other
    than attention, or with positions that are not rotary.
    """
    ropes = [(m, m[ROPE]) for m in model.modules() if isinstance(m.get(ROPE), nn.Module)]
    plain = all(type(c) in (KVCache, RotatingKVCache) for c in make_prompt_cache(model))
    if not ropes or not plain:
        raise InvalidSetting("train.packing_unsupported")
    positions = Positions()
    for attention, rope in ropes:
        attention[ROPE] = PackedRope(rope, positions)
    return positions

"""Rows of several samples: each sees only itself, and counts its positions from zero."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    ChunkedKVCache,
    KVCache,
    RotatingKVCache,
    make_prompt_cache,
)

from safetrain_shared.errors import InvalidSetting
from safetraind.worker.training.recurrence.replacements import in_chunks

# How far apart, in parts of the largest logit, the same sample may be after another, which only the
# order of sums can change, and alone, where 16 bits round what is computed in another shape.
_ROUNDING, _SAME = 1e-2, 0.1
ROPE = "rope"  # what mlx-lm's models call the module that turns queries and keys by their positions


class Positions:
    """The positions of the current rows, (B, T); None: the usual ones."""

    def __init__(self) -> None:
        self.now: mx.array | None = None


class PackedRope(nn.Module):
    """A rotary embedding that takes each token's position from the rows, not from its place."""

    def __init__(self, rope: nn.Module, positions: Positions) -> None:
        super().__init__()
        self.inner, self._positions = rope, positions

    def __call__(self, x: mx.array, offset: Any = 0) -> mx.array:
        """Rotate `x` (B, heads, T, D). Every token is passed on as a row with its own offset."""
        positions = self._positions.now
        if positions is None:
            return self.inner(x, offset=offset)
        rows, heads, width, size = x.shape
        single = x.transpose(0, 2, 1, 3).reshape(rows * width, heads, 1, size)
        turned = self.inner(single, offset=positions.reshape(-1))
        return turned.reshape(rows, width, heads, size).transpose(0, 2, 1, 3)


class PackedRows:
    """Takes the place of a model's cache, and returns the block-diagonal causal mask.

    mlx-lm's models ask their cache for the mask and pass it their keys and values, which this one
    returns unchanged.
    """

    offset = 0

    def __init__(self, segments: mx.array) -> None:
        """`segments` (B, T): the number of the sample that each token belongs to."""
        self._segments = segments

    def make_mask(
        self, width: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array:
        """Return the mask of the keys that each query sees, bool, (B, 1, T, T)."""
        place = mx.arange(width)
        back = place[:, None] - place[None]
        seen = back >= 0 if window_size is None else (back >= 0) & (back < window_size)
        same = self._segments[:, :, None] == self._segments[:, None, :]
        return (same & seen)[:, None]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Return `keys` and `values` (B, heads, T, D) unchanged: nothing is cached."""
        return keys, values


class PackedState:
    """Takes the place of a recurrent layer's state: there is none before a row, and none is kept.

    (`recurrence.replacements` resets the states within a row.)
    """

    lengths = None

    def __init__(self, size: int) -> None:
        """`size`: the number of arrays that the layer would keep."""
        self._size = size

    def __iter__(self) -> Iterator[None]:
        return iter([None] * self._size)

    def __getitem__(self, _: int) -> None:
        return None

    def __setitem__(self, _: int, __: Any) -> None:
        pass

    def advance(self, _: int) -> None:
        """Keep nothing."""

    def make_mask(self, _: int) -> None:
        """Return None: no token of a packed row is padding."""


class Packing:
    """A model prepared for packed rows."""

    def __init__(self, model: nn.Module) -> None:
        """Prepare `model`. Raises InvalidSetting for one whose samples would see each other.

        One short pass decides: a sample's output must not depend on what precedes it in the row.
        """
        self._positions = Positions()
        self._kinds = make_prompt_cache(model)
        for module in list(model.modules()):
            if isinstance(module.get(ROPE), nn.Module):
                module[ROPE] = PackedRope(module[ROPE], self._positions)
        if not self._keeps_apart(model):
            raise InvalidSetting("train.packing_unsupported")

    def caches(self, segments: mx.array) -> list[Any]:
        """Return the layers' caches for rows whose samples `segments` numbers."""
        return [_packed(kind, segments) for kind in self._kinds]

    @contextmanager
    def at(self, positions: mx.array | None) -> Iterator[None]:
        """Give the tokens these positions, (B, T), inside this context; None: the usual ones."""
        self._positions.now = positions
        try:
            yield
        finally:
            self._positions.now = None

    def _keeps_apart(self, model: nn.Module) -> bool:
        tokens, length = mx.arange(12), 7
        model.eval()
        try:
            alone = model(tokens[None, length:])[0]
            found = self._second(model, tokens, length)
            other = self._second(
                model, mx.concatenate([tokens[:length][::-1], tokens[length:]]), length
            )
        except Exception:  # a model may ask of its caches what these do not have
            return False
        return _distance(other, found) < _ROUNDING and _distance(alone, found) < _SAME

    def _second(self, model: nn.Module, tokens: mx.array, length: int) -> mx.array:
        """Return the logits of the second of two samples, the first of which has `length`
        tokens.
        """
        place = mx.arange(len(tokens))
        segments = (place >= length).astype(mx.int32)[None]
        positions = (place - length * segments[0])[None]
        with self.at(positions), in_chunks(segments):
            logits: mx.array = model(tokens[None], cache=self.caches(segments))[0, length:]
            mx.eval(logits)
        return logits


def _packed(kind: Any, segments: mx.array) -> Any:
    if isinstance(kind, CacheList):
        return [_packed(part, segments) for part in kind.caches]
    if isinstance(kind, ArraysCache):
        return PackedState(len(kind.cache))
    if type(kind) in (KVCache, RotatingKVCache, ChunkedKVCache):
        return PackedRows(segments)
    raise InvalidSetting("train.packing_unsupported")


def _distance(found: mx.array, expected: mx.array) -> float:
    """Return the largest difference, relative to the largest number."""
    found, expected = found.astype(mx.float32), expected.astype(mx.float32)
    share: Any = (mx.abs(found - expected).max() / mx.abs(expected).max()).item()
    return float(share)

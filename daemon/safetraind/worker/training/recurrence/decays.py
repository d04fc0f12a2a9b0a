"""Decays within chunks of a recurrence, and how arrays are cut into chunks."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

CHUNK = 64  # tokens; the papers' choice too


def by_chunk(part: mx.array, groups: int) -> mx.array:
    """Reshape (B, T, heads, D) to (B, groups, heads of a group, chunks, CHUNK, D), float32."""
    batch, length, _, size = part.shape
    shaped = part.astype(mx.float32).reshape(batch, length // CHUNK, CHUNK, groups, -1, size)
    return shaped.transpose(0, 3, 4, 1, 2, 5)


class Decays:
    """The share of each token's contribution that is left later on, within chunks and from border
    to border.

    Every exponent is a sum of logarithms over just the tokens between, so that none is above zero
    and a strong decay costs its neighbours no precision. `from_start` (…, C, D): left at each token
    of what the state held before the chunk; `to_end` (…, C, D): left at the chunk's end of what
    each token wrote; `whole` (…, D, 1): left at its end of what was before it.
    """

    def __init__(self, logs: mx.array, segments: mx.array | None) -> None:
        """`logs` (…, C, D), where D is 1 or the key size. `segments` (B, 1 + T): of the
        token before, then of each token of the span; None where all are one.
        """
        self.logs = logs
        self.same: mx.array | None = None
        to_start = mx.cumsum(logs, axis=-2)
        self.from_start = _exp(to_start)
        self.to_end = _exp(mx.cumsum(logs, axis=-2, reverse=True, inclusive=False))
        self.whole = _exp(to_start[..., -1:, :].swapaxes(-1, -2))
        if segments is not None:
            before, own = segments[:, :-1:CHUNK, None], _chunks(segments[:, 1:])
            last = own[..., -1:]
            self.same = _wide(own[..., None] == own[..., None, :])
            self.from_start = self.from_start * _wide((own == before)[..., None])
            self.to_end = self.to_end * _wide((own == last)[..., None])
            self.whole = self.whole * _wide((last == before)[..., None])

    def within(self, rows: mx.array, columns: mx.array) -> mx.array:
        """Return the decayed products of `rows` with the `columns` before them, (…, C, C), strictly
        lower.

        With a decay of each channel the products are taken level by level: for the pairs that a
        border between two blocks of 1, 2, 4, … tokens parts, each side decays to that border.
        """
        if self.logs.shape[-1] == 1:
            products = rows @ columns.swapaxes(-1, -2)
            total = mx.where(_lower(), products * between(self.logs), 0)
        else:
            total = mx.zeros(())
            for mask, left in zip(levels(), _to_borders(self.logs), strict=True):
                total = total + mask * ((rows * left) @ (columns * left).swapaxes(-1, -2))
        return total if self.same is None else total * self.same

    def gradient(
        self,
        of_start: mx.array,
        of_end: mx.array,
        of_whole: mx.array,
        of_shares: mx.array,
        shares: mx.array,
    ) -> mx.array:
        """Return the gradient of the logarithms, where D is 1, from those of `from_start`,
        `to_end`, `whole` and `shares`, which is `between(logs)` where the segment is the same.
        """
        found = mx.cumsum(of_start * self.from_start, axis=-2, reverse=True)
        found = found + mx.cumsum(of_end * self.to_end, axis=-2, inclusive=False)
        return found + of_whole * self.whole + _of_products(None, of_shares, shares)


def between(logs: mx.array) -> mx.array:
    """Return the share left at token i of what token j wrote, (…, C, C), from logarithms (…, C, 1):
    exp of their sum after j up to i for j < i, 1 for j = i, else 0.

    Computed as a product of the single decays, since exponentials of all C × C sums take longer
    than all the rest.
    """
    run: Any = mx.custom_function(_products)
    run.vjp(_of_products)
    left: mx.array = run(logs)
    return left


def _exp(logs: mx.array) -> mx.array:
    """Return the exponential, in a kernel of its own.

    Fused with a multiplication, `mx.compile` would compute it again for every number it is
    broadcast to.
    """
    return mx.depends([mx.exp(logs)], [logs])[0]


def _products(logs: mx.array) -> mx.array:
    factors = mx.where(_lower(), _exp(logs), 1)
    return mx.where(_lower(k=0), mx.cumprod(factors, axis=-2), 0)


def _of_products(_: mx.array | None, cotangent: mx.array, left: mx.array) -> mx.array:
    """Return the gradient of the logarithms: one at t is part of the share left for every i from t
    on, of every j before t.
    """
    later = mx.cumsum(cotangent * left, axis=-2, reverse=True)
    return mx.where(_lower(), later, 0).sum(-1, keepdims=True)


def _to_borders(logs: mx.array) -> list[mx.array]:
    """Return, for each level, the share left between a token and the border in the middle of its
    block.
    """
    found, size = [], 1
    while size < CHUNK:
        blocks = logs.reshape(*logs.shape[:-2], -1, 2, size, logs.shape[-1])
        before = mx.cumsum(blocks[..., 0, :, :], axis=-2, reverse=True, inclusive=False)
        after = mx.cumsum(blocks[..., 1, :, :], axis=-2)
        found.append(_exp(mx.stack([before, after], axis=-3).reshape(logs.shape)))
        size *= 2
    return found


def _chunks(segments: mx.array) -> mx.array:
    return segments.reshape(segments.shape[0], -1, CHUNK)


def _wide(of_tokens: mx.array) -> mx.array:
    """Reshape (B, chunks, …) to (B, 1, 1, chunks, …), float32."""
    return of_tokens[:, None, None].astype(mx.float32)


def _lower(k: int = -1) -> mx.array:
    return mx.tri(CHUNK, k=k).astype(mx.bool_)


def levels() -> list[mx.array]:
    """Return (C, C) masks that together are strictly lower: token i in the second half of a block
    of 2, 4, …, C tokens, and j in its first half.
    """
    place = mx.arange(CHUNK)
    masks, size = [], 1
    while size < CHUNK:
        half, block = place // size, place // (2 * size)
        pair = (block[:, None] == block) & (half[:, None] > half)
        masks.append(pair.astype(mx.float32))
        size *= 2
    return masks

"""Attention in blocks of queries, recomputed in the backward pass: no score matrix is ever kept.

A device without a fused backward keeps (heads × T × T) numbers of each layer, and so does every
device where a mask forbids it. Here the scores of one block of queries exist at a time. The
backward pass keeps the output and one number a query, the logarithm of its softmax's denominator
("FlashAttention-2", Dao 2023, section 3.1, with whole rows in place of tiles).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from safetrain_shared.attention import BLOCK, attends_in_blocks

Mask = mx.array | str | None


@contextmanager
def in_blocks(*, causal_masks: bool = False, learns: bool = True) -> Iterator[None]:
    """Make `mx.fast.scaled_dot_product_attention` compute in blocks, where it pays, inside this
    context.

    `causal_masks`: no mask that is an array lets a query see a later key, so that each block needs
    only the keys up to its end. `learns`: there is a backward pass. Without one a GPU's own
    attention makes no score matrix for any mask.
    """
    original = mx.fast.scaled_dot_product_attention

    def attend(
        q: mx.array,
        k: mx.array,
        v: mx.array,
        *,
        scale: float,
        mask: Mask = None,
        sinks: mx.array | None = None,
        **options: Any,
    ) -> mx.array:
        masked = isinstance(mask, mx.array) or sinks is not None
        # Scores to be added, as latent attention hands over, may have a gradient of their own.
        added = isinstance(mask, mx.array) and mask.dtype != mx.bool_
        sizes = q.shape[-1], v.shape[-1]
        pays = attends_in_blocks(q.shape[2], masked=masked, sizes=sizes, fused=_fused())
        if added or not pays or (_fused() and not learns):
            return original(q, k, v, scale=scale, mask=mask, sinks=sinks, **options)
        return block_attention(q, k, v, scale, mask, sinks, causal=causal_masks)

    mx.fast.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        mx.fast.scaled_dot_product_attention = original


def _fused() -> bool:
    """Return whether the device has an attention backward without the score matrix (mlx 0.32.4)."""
    return mx.metal.is_available() and mx.default_device() == mx.Device(mx.gpu)


def block_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    scale: float,
    mask: Mask = None,
    sinks: mx.array | None = None,
    *,
    causal: bool = False,
) -> mx.array:
    """Return softmax(scale q kᵀ + mask) v, as `mx.fast.scaled_dot_product_attention` defines it.

    `q` (B, H, T, D), `k` (B, G, S, D), `v` (B, G, S, V), each key head shared by H / G query heads;
    `mask` "causal" or bool (true: seen), in a shape that broadcasts to (B, H, T, S); `sinks` (H,):
    one more score for each head, which no value belongs to. With `causal` an array `mask` is causal
    too.
    """
    length, keys = q.shape[2], k.shape[2]
    if isinstance(mask, str):
        mask, causal = None, True
    elif mask is None:
        causal = False
    rows = _Rows(scale, mask, causal, keys - length)
    both: Any = mx.custom_function(lambda *operands: list(rows.forward(*operands)))
    both.vjp(rows.backward)
    output: mx.array = both(*([q, k, v] if sinks is None else [q, k, v, sinks]))[0]
    return output


@dataclass(frozen=True, slots=True)
class _Rows:
    """Attention in blocks of queries. `offset`: how many keys come before the first query's own.

    Heads that share keys stand together: arrays are (B, G, H / G, queries, …).
    """

    scale: float
    mask: mx.array | None
    causal: bool
    offset: int

    def forward(
        self, q: mx.array, k: mx.array, v: mx.array, sinks: mx.array | None = None
    ) -> tuple[mx.array, mx.array]:
        """Return the output (B, H, T, V), and for each query log Σ exp(score), (B, G, H / G, T,
        1).
        """
        outputs, sums = list[mx.array](), list[mx.array]()
        grouped = _grouped(q, k)
        for start in range(0, q.shape[2], BLOCK):
            # Without this order MLX may compute several blocks at once, and hold all their scores.
            (queries,) = mx.depends([grouped[..., start : start + BLOCK, :]], outputs[-1:] or [k])
            scores = self._scores(queries, k, start)
            total = mx.logsumexp(scores, axis=-1, keepdims=True)
            if sinks is not None:
                total = mx.logaddexp(total, _of_heads(sinks, scores))
            weights = mx.exp(scores - total).astype(v.dtype)
            outputs.append(_product(weights, v[:, :, : scores.shape[-1]]))
            sums.append(total)
        return _heads(mx.concatenate(outputs, axis=3)), mx.concatenate(sums, axis=3)

    def backward(
        self,
        operands: Sequence[mx.array],
        cotangents: Sequence[mx.array],
        found: Sequence[mx.array],
    ) -> list[mx.array]:
        """Return the gradients of all operands. The scores of one block at a time are
        recomputed.
        """
        q, k, v, *sinks = operands
        grouped, output, of_output = (_grouped(part, k) for part in (q, found[0], cotangents[0]))
        of_q, of_k, of_v = list[mx.array](), mx.zeros_like(k), mx.zeros_like(v)
        of_sinks = [mx.zeros(sink.shape) for sink in sinks]
        for start in range(0, q.shape[2], BLOCK):
            part = slice(start, start + BLOCK)
            queries, worth, total, result = mx.depends(
                [of[..., part, :] for of in (grouped, of_output, found[1], output)], [of_k, of_v]
            )
            scores = self._scores(queries, k, start)
            weights, seen = mx.exp(scores - total), scores.shape[-1]
            drop = (worth * result).astype(mx.float32).sum(-1, keepdims=True)
            of_weights = _product(worth, v[:, :, :seen].swapaxes(-1, -2)).astype(mx.float32)
            of_scores = (weights * (of_weights - drop)).astype(k.dtype)
            of_q.append(self.scale * _product(of_scores, k[:, :, :seen]))
            of_k = _added(of_k, self.scale * _transposed_product(of_scores, queries))
            of_v = _added(of_v, _transposed_product(weights.astype(v.dtype), worth))
            for sink in sinks:
                share = mx.exp(_of_heads(sink, scores) - total)
                of_sinks = [of_sinks[0] - (share * drop).sum(axis=(0, 3, 4)).reshape(-1)]
        return [_heads(mx.concatenate(of_q, axis=3)), of_k, of_v, *of_sinks]

    def _scores(self, queries: mx.array, k: mx.array, start: int) -> mx.array:
        """Return the masked float32 scores of a block, with all keys that any of its queries may
        see.
        """
        count = queries.shape[3]
        end = start + count + self.offset if self.causal else k.shape[2]
        scores = _product(queries * self.scale, k[:, :, :end].swapaxes(-1, -2)).astype(mx.float32)
        if self.causal and self.mask is None:
            place = mx.arange(start + self.offset, start + self.offset + count)
            return mx.where(place[:, None] >= mx.arange(end), scores, -mx.inf)
        if self.mask is None:
            return scores
        mask = self._mask(start, count, end, scores)
        lowest = mx.finfo(scores.dtype).min  # not -inf: a query that sees nothing gives no NaN
        return mx.where(mask, scores, lowest)

    def _mask(self, start: int, count: int, end: int, scores: mx.array) -> mx.array:
        """Return the part of the mask that belongs to a block, in a shape that broadcasts to
        `scores`.
        """
        assert self.mask is not None
        mask = self.mask
        if mask.shape[-1] > 1:
            mask = mask[..., :end]
        if mask.ndim > 1 and mask.shape[-2] > 1:
            mask = mask[..., start : start + count, :]
        if mask.ndim < 4:
            return mask
        heads = mask.shape[1]
        groups = scores.shape[1:3] if heads > 1 else (1, 1)
        return mask.reshape(mask.shape[0], *groups, *mask.shape[2:])


def _grouped(part: mx.array, k: mx.array) -> mx.array:
    """Reshape (B, H, T, D) to (B, G, H / G, T, D)."""
    return part.reshape(part.shape[0], k.shape[1], -1, *part.shape[2:])


def _heads(part: mx.array) -> mx.array:
    """Reshape (B, G, H / G, T, D) to (B, H, T, D)."""
    return part.flatten(1, 2)


def _of_heads(sinks: mx.array, scores: mx.array) -> mx.array:
    """Reshape (H,) to (G, H / G, 1, 1), float32."""
    return sinks.astype(mx.float32).reshape(*scores.shape[1:3], 1, 1)


def _product(rows: mx.array, shared: mx.array) -> mx.array:
    """Multiply (B, G, R, T, X) by (B, G, X, Y), with the heads of a group as rows of one matrix."""
    found = rows.flatten(2, 3) @ shared
    return found.reshape(*rows.shape[:4], -1)


def _transposed_product(left: mx.array, right: mx.array) -> mx.array:
    """Sum over the heads of a group and their queries: (B, G, R, T, X), (…, Y) to (B, G, X, Y)."""
    return left.flatten(2, 3).swapaxes(-1, -2) @ right.flatten(2, 3)


def _added(total: mx.array, part: mx.array) -> mx.array:
    """Return `total` (B, G, S, D) with `part` added to its first keys."""
    seen = part.shape[2]
    if seen == total.shape[2]:
        return total + part
    return mx.concatenate([total[:, :, :seen] + part, total[:, :, seen:]], axis=2)

"""A span of a state-space layer (SSD) and its gradient: one decay a head, and nothing read before
it is written.

The dual form of "Transformers are SSMs" (Dao and Gu 2024, section 6), arranged for heads that share
their keys and queries: what is per head are the decays and the values alone. So decays are put on
the values and on what is read, and one product serves all heads of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from safetraind.worker.training.recurrence.decays import Decays, between, by_chunk


class _Chunks:
    """What both passes need of a span, but for its states.

    `q`, `k` (B, G, chunks, C, K), and their `products` (B, G, 1, chunks, C, C); with the `shares`
    left from token to token they make `read` (B, G, R, chunks, C, C). The values are in two orders:
    `own` (B, G, R, chunks, C, V) and `values` (B, G, chunks, C, R, V); `written`: as the latter,
    what is left of them at the chunk's end. `from_start` and `to_end` (B, G, chunks, C, R, 1);
    `left`, of each chunk (B, G, 1, R × V).
    """

    def __init__(
        self,
        segments: mx.array | None,
        q: mx.array,
        k: mx.array,
        v: mx.array,
        log_decay: mx.array,
    ) -> None:
        groups, values = k.shape[2], v.shape[-1]
        self.decays = Decays(by_chunk(log_decay[..., None], groups), segments)
        self.shares = between(self.decays.logs)
        if self.decays.same is not None:
            self.shares = self.shares * self.decays.same
        self.q, self.k = (by_chunk(part, groups).squeeze(2) for part in (q, k))
        self.own = by_chunk(v, groups)
        self.products = (self.q @ self.k.swapaxes(-1, -2))[:, :, None]
        self.read = self.products * self.shares
        self.from_start = _turned(self.decays.from_start)
        self.to_end = _turned(self.decays.to_end)
        self.values = _turned(self.own)
        self.written = self.values * self.to_end
        whole = mx.broadcast_to(self.decays.whole, (*self.decays.whole.shape[:-1], values))
        self.left = _each(_turned(whole).flatten(4))


def dual_span(
    segments: mx.array | None,
    state: mx.array,
    q: mx.array,
    k: mx.array,
    v: mx.array,
    log_decay: mx.array,
) -> list[mx.array]:
    """Return the outputs (B, T, H, V) of a few whole chunks, and the state after them (B, G, R, K,
    V), float32.

    `segments`: see `Decays`; `state` (B, G, R, K, V) with R = H / G; `q`, `k` (B, T, G, K), `v` (B,
    T, H, V), `log_decay` (B, T, H).
    """
    span = _Chunks(segments, q, k, v, log_decay)
    before, last = _states(span, state)
    y = _turned(span.read @ span.own) + _by_head(span.q @ before, v) * span.from_start
    return [_in_order(y, v), mx.unflatten(last, 3, state.shape[2::2]).swapaxes(2, 3)]


def dual_span_gradient(
    segments: mx.array | None,
    primals: Sequence[mx.array],
    of_y: mx.array,
    of_state: mx.array,
) -> list[mx.array]:
    """Return the gradients of `dual_span`'s `primals`, all but the segments, from those of its
    outputs.
    """
    state, q, k, v, log_decay = primals
    span = _Chunks(segments, q, k, v, log_decay)
    before, _ = _states(span, state)
    heads = by_chunk(of_y, k.shape[2])
    tokens = _turned(heads)
    of_seen = (tokens * span.from_start).flatten(4)
    of_first, added, of_left = _through_states(span, before, of_seen, of_state)
    of_written = _by_head(span.k @ added, v)
    of_read = heads @ span.own.swapaxes(-1, -2)
    of_products = (of_read * span.shares).sum(2)
    of_q = of_seen @ before.swapaxes(-1, -2) + of_products @ span.k
    of_k = span.written.flatten(4) @ added.swapaxes(-1, -2)
    of_k = of_k + of_products.swapaxes(-1, -2) @ span.q
    of_v = of_written * span.to_end + _turned(span.read.swapaxes(-1, -2) @ heads)
    of_whole = mx.unflatten(of_left, 3, (-1, v.shape[-1])).sum(-1)
    of_logs = span.decays.gradient(
        _unturned((tokens * _by_head(span.q @ before, v)).sum(-1, keepdims=True)),
        _unturned((of_written * span.values).sum(-1, keepdims=True)),
        of_whole.swapaxes(2, 3)[..., None, None],
        of_read * span.products,
        span.shares,
    )
    found = [
        mx.unflatten(of_first, 3, state.shape[2::2]).swapaxes(2, 3),
        _in_order(of_q[..., None, :], q),
        _in_order(of_k[..., None, :], k),
        _in_order(of_v, v),
        _in_order(_turned(of_logs), log_decay),
    ]
    return [part.astype(primal.dtype) for part, primal in zip(found, primals, strict=True)]


def _states(span: _Chunks, state: mx.array) -> tuple[mx.array, mx.array]:
    """Return the states before each chunk (B, G, chunks, K, R × V), and the last one."""
    now, states = state.swapaxes(2, 3).flatten(3), list[mx.array]()
    added = _each(span.k.swapaxes(-1, -2) @ span.written.flatten(4))
    for add, left in zip(added, span.left, strict=True):
        states.append(now)
        now = left * now + add
    return mx.stack(states, axis=2), now


def _through_states(
    span: _Chunks, before: mx.array, of_seen: mx.array, of_state: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    """Return the gradients of the first state (B, G, K, R × V), of what each chunk adds (B, G,
    chunks, K, R × V), and of `left` (B, G, chunks, R × V).
    """
    now, of_added, of_left = of_state.swapaxes(2, 3).flatten(3), list[mx.array](), list[mx.array]()
    of_read = _each(span.q.swapaxes(-1, -2) @ of_seen)
    for of_this, left, was in reversed(list(zip(of_read, span.left, _each(before), strict=True))):
        of_added.insert(0, now)
        of_left.insert(0, (now * was).sum(2))
        now = left * now + of_this
    return now, mx.stack(of_added, axis=2), mx.stack(of_left, axis=2)


def _in_order(part: mx.array, like: mx.array) -> mx.array:
    """Reshape (B, G, chunks, C, R, V) to (B, T, H, V) or (B, T, H), as `like` is."""
    return part.transpose(0, 2, 3, 1, 4, 5).reshape(like.shape)


def _turned(part: mx.array) -> mx.array:
    """Reshape (B, G, R, chunks, C, V) to (B, G, chunks, C, R, V)."""
    return part.transpose(0, 1, 3, 4, 2, 5)


def _unturned(part: mx.array) -> mx.array:
    return part.transpose(0, 1, 4, 2, 3, 5)


def _by_head(part: mx.array, values: mx.array) -> mx.array:
    """Reshape (B, G, chunks, C, R × V) to (B, G, chunks, C, R, V)."""
    return mx.unflatten(part, 4, (-1, values.shape[-1]))


def _each(chunks: mx.array) -> list[mx.array]:
    """Return the chunks one by one. They are split, since the gradient of an index would be filled
    up with zeros.
    """
    return [chunk.squeeze(2) for chunk in mx.split(chunks, chunks.shape[2], axis=2)]

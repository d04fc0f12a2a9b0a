"""A span of a state-space layer (SSD): one decay a head, and nothing read before it is written.

The dual form of "Transformers are SSMs" (Dao and Gu 2024, section 6), arranged for heads that share
their keys and queries: what is per head are the decays and the values alone. So decays are put on
the values and on what is read, and one product serves all heads of a group.
"""

from __future__ import annotations

import mlx.core as mx

from safetraind.worker.training.recurrence.decays import Decays, between, by_chunk


def dual_span(
    segments: mx.array | None,
    state: mx.array,
    q: mx.array,
    k: mx.array,
    v: mx.array,
    log_decay: mx.array,
) -> list[mx.array]:
    """Return a few whole chunks: y (B, T, H, V) and the state after them (B, G, R, K, V), float32.

    `state` (B, G, R, K, V) with R = H / G; `q`, `k` (B, T, G, K), `v` (B, T, H, V), `log_decay` (B,
    T, H). Arrays here are (B, groups, chunks, tokens of a chunk, heads of a group × V).
    """
    groups, (heads, values) = k.shape[2], state.shape[2::2]
    decays = Decays(by_chunk(log_decay[..., None], groups), segments)
    q, k = (by_chunk(part, groups).squeeze(2) for part in (q, k))
    own = by_chunk(v, groups)
    within = between(decays.logs)
    if decays.same is not None:
        within = within * decays.same
    read = (q @ k.swapaxes(-1, -2))[:, :, None] * within
    y = _flat(read @ own)
    written = k.swapaxes(-1, -2) @ _flat(own * decays.to_end)
    left = _flat(mx.broadcast_to(decays.whole, (*decays.whole.shape[:-1], values)))
    before, now = [], state.swapaxes(2, 3).flatten(3)
    for wrote, share in zip(_each(written), _each(left), strict=True):
        before.append(now)
        now = share * now + wrote
    seen = mx.unflatten(q @ mx.stack(before, axis=2), 4, (-1, values))
    y = y + (seen * decays.from_start.transpose(0, 1, 3, 4, 2, 5)).flatten(4)
    y = y.transpose(0, 2, 3, 1, 4).reshape(v.shape)
    return [y, mx.unflatten(now, 3, (heads, values)).swapaxes(2, 3)]


def _flat(part: mx.array) -> mx.array:
    """Reshape (B, G, R, chunks, tokens, V) to (B, G, chunks, tokens, R × V)."""
    return part.transpose(0, 1, 3, 4, 2, 5).flatten(4)


def _each(chunks: mx.array) -> list[mx.array]:
    """Return the chunks one by one. They are split, since the gradient of an index would be filled
    up with zeros.
    """
    return [chunk.squeeze(2) for chunk in mx.split(chunks, chunks.shape[2], axis=2)]

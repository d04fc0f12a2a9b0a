"""Linear attention in chunks: the matrix-valued recurrence behind gated delta nets and SSD layers.

The recurrence, for each head, with a state S of shape (key size, value size):

    S = diag(decay_t) S
    u_t = beta_t (v_t - Sᵀ k_t)        with the delta rule; without it u_t = v_t
    S = S + k_t u_tᵀ
    y_t = Sᵀ q_t

Token by token it is thousands of tiny operations whose intermediates all wait for the way back.
Here it is computed in chunks of 64 tokens: within a chunk as matrix products (the UT transform of
"Gated Delta Networks", Yang et al. 2024, section 3.3; without the delta rule the dual form of
"Transformers are SSMs", Dao and Gu 2024, section 6; with a decay for each key channel as in "Kimi
Linear", 2025), from chunk to chunk through the state.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.core as mx

from safetraind.worker.training.recurrence.spans import Span, in_spans

CHUNK = 64  # tokens; the papers' choice too
SPAN = 256  # tokens that are computed in one go, and again on the way back


def chunked_scan(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    log_decay: mx.array,
    beta: mx.array | None = None,
    state: mx.array | None = None,
    segments: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """The outputs y (B, T, H, V) and the last state (B, H, K, V), both float32.

    `q`, `k` (B, T, G, K), each shared by H / G neighbouring heads; `v` (B, T, H, V); `log_decay`
    (B, T, H), or (B, T, H, K) for a decay of each key channel, at most 0; `beta` (B, T, H): with
    the delta rule. `state`: before the first token; zeros where it is None. `segments` (B, T),
    ascending whole numbers: the state is zero where a new one begins.
    """
    (batch, length, groups, keys), (heads, values) = k.shape, v.shape[2:]
    parts = [q, k, v, log_decay, *([] if beta is None else [beta])]
    padding = -length % CHUNK
    parts = [_padded(part, padding) for part in parts]
    if segments is not None:
        segments = mx.pad(segments, [(0, 0), (0, padding)], mode="edge")
    if state is None:
        state = mx.zeros((batch, heads, keys, values))
    state = state.astype(mx.float32).reshape(batch, groups, -1, keys, values)

    def span_at(start: int) -> Span:
        return partial(_span, None if segments is None else _bordered(segments, start))

    y, state = in_spans(span_at, state, parts, SPAN)
    return y[:, :length], state.reshape(batch, heads, keys, values)


def _padded(part: mx.array, padding: int) -> mx.array:
    """Zeros at the end change nothing: no decay, nothing written, nothing read."""
    return mx.pad(part, [(0, 0), (0, padding)] + [(0, 0)] * (part.ndim - 2)) if padding else part


def _span(
    segments: mx.array | None,
    state: mx.array,
    q: mx.array,
    k: mx.array,
    v: mx.array,
    log_decay: mx.array,
    beta: mx.array | None = None,
) -> list[mx.array]:
    """A few whole chunks: y (B, T, H, V) and the state after them (B, G, H / G, K, V), float32.

    What does not depend on the state is computed for all chunks at once. Arrays are
    (B, groups, heads of a group, chunks, tokens of a chunk, …).
    """
    groups = k.shape[2]
    q, k, v = (_by_chunk(part, groups) for part in (q, k, v))
    log_decay = _by_chunk(log_decay if log_decay.ndim == 4 else log_decay[..., None], groups)
    decays = Decays(log_decay, segments)
    read = decays.within(q, k) + (q * k).sum(-1, keepdims=True) * _eye()
    seen, kept = q * decays.from_start, (k * decays.to_end).swapaxes(-1, -2)
    taken: list[mx.array] = []
    if beta is not None:
        beta = _by_chunk(beta[..., None], groups)
        solved = _inverse(beta * decays.within(k, k))
        v, taken = solved @ (beta * v), _each(solved @ (beta * (k * decays.from_start)))
    found = []
    for n, (seen_now, read_now, kept_now, written, left) in enumerate(
        zip(*(_each(part) for part in (seen, read, kept, v, decays.whole)), strict=True)
    ):
        if taken:
            written = written - taken[n] @ state
        found.append(seen_now @ state + read_now @ written)
        state = left * state + kept_now @ written
    y = mx.stack(found, axis=3)  # (B, G, R, N, C, V)
    y = y.transpose(0, 3, 4, 1, 2, 5)
    return [y.reshape(y.shape[0], y.shape[1] * CHUNK, -1, y.shape[-1]), state]


def _by_chunk(part: mx.array, groups: int) -> mx.array:
    """(B, T, heads, D) as (B, groups, heads of a group, chunks, CHUNK, D), float32."""
    batch, length, _, size = part.shape
    shaped = part.astype(mx.float32).reshape(batch, length // CHUNK, CHUNK, groups, -1, size)
    return shaped.transpose(0, 3, 4, 1, 2, 5)


def _each(chunks: mx.array) -> list[mx.array]:
    """The chunks apart: split, because on the way back an index would fill up with zeros."""
    return [chunk.squeeze(3) for chunk in mx.split(chunks, chunks.shape[3], axis=3)]


class Decays:
    """How much of what a token wrote is left later on, within chunks and from border to border.

    Every exponent is a sum of logarithms over just the tokens between, so that none is above zero
    and a strong decay costs its neighbours no precision. `from_start` (…, C, D): left at each
    token of what the state held before the chunk; `to_end` (…, C, D): left at the chunk's end of
    what each token wrote; `whole` (…, D, 1): left at its end of what was before it.
    """

    def __init__(self, logs: mx.array, segments: mx.array | None) -> None:
        """`logs` (…, C, D), D being 1 or the key size; `segments`: see `_bordered`."""
        self._logs = logs
        self._same: mx.array | None = None
        to_start = mx.cumsum(logs, axis=-2)
        self.from_start = mx.exp(to_start)
        self.to_end = mx.exp(mx.cumsum(logs, axis=-2, reverse=True, inclusive=False))
        self.whole = mx.exp(to_start[..., -1:, :].swapaxes(-1, -2))
        if segments is not None:
            before, own = segments[:, :-1:CHUNK, None], _chunks(segments[:, 1:])
            last = own[..., -1:]
            self._same = _wide(own[..., None] == own[..., None, :])
            self.from_start = self.from_start * _wide((own == before)[..., None])
            self.to_end = self.to_end * _wide((own == last)[..., None])
            self.whole = self.whole * _wide((last == before)[..., None])

    def within(self, rows: mx.array, columns: mx.array) -> mx.array:
        """The decayed products of `rows` with the `columns` before them, (…, C, C), strictly lower.

        With a decay of each channel the products are taken level by level: for the pairs that a
        border between two blocks of 1, 2, 4, … tokens parts, each side decays to that border.
        """
        if self._logs.shape[-1] == 1:
            total = (rows @ columns.swapaxes(-1, -2)) * _between(self._logs)
        else:
            total = mx.zeros(())
            for mask, left in zip(_levels(), _to_borders(self._logs), strict=True):
                total = total + mask * ((rows * left) @ (columns * left).swapaxes(-1, -2))
        return total if self._same is None else total * self._same


def _between(logs: mx.array) -> mx.array:
    """Exp of the logarithms' sum after token j up to token i, for j < i, else 0: (…, C, C)."""
    below = mx.array(_lower())
    sums = mx.cumsum(mx.where(below, logs, 0), axis=-2)
    return mx.where(below, mx.exp(sums), 0)


def _to_borders(logs: mx.array) -> list[mx.array]:
    """For each level what is left between a token and the border in the middle of its block."""
    found, size = [], 1
    while size < CHUNK:
        blocks = logs.reshape(*logs.shape[:-2], -1, 2, size, logs.shape[-1])
        before = mx.cumsum(blocks[..., 0, :, :], axis=-2, reverse=True, inclusive=False)
        after = mx.cumsum(blocks[..., 1, :, :], axis=-2)
        found.append(mx.exp(mx.stack([before, after], axis=-3).reshape(logs.shape)))
        size *= 2
    return found


def _inverse(lower: mx.array) -> mx.array:
    run: Any = mx.custom_function(_by_blocks)
    run.vjp(_of_inverse)
    inverse: mx.array = run(lower)
    return inverse


def _by_blocks(lower: mx.array) -> mx.array:
    """The inverse of I + `lower` (…, C, C), strictly lower, by blocks of 1, 2, 4, … tokens.

    (Its Neumann series, one product shorter, loses all digits where the keys are alike.)
    """
    masks = _levels()
    inverse = _eye() - lower * masks[0]
    for mask in masks[1:]:
        inverse = inverse - inverse @ (lower * mask) @ inverse
    return inverse


def _of_inverse(_: mx.array, cotangent: mx.array, inverse: mx.array) -> mx.array:
    turned = inverse.swapaxes(-1, -2)
    return -(turned @ cotangent @ turned)


def _bordered(segments: mx.array, start: int) -> mx.array:
    """The segments of a span, and before them that of the token before: (B, 1 + T).

    Before the first token comes its own segment: a state that is handed in belongs to it.
    """
    before = segments[:, max(0, start - 1)][:, None]
    return mx.concatenate([before, segments[:, start : start + SPAN]], axis=1)


def _chunks(segments: mx.array) -> mx.array:
    return segments.reshape(segments.shape[0], -1, CHUNK)


def _wide(of_tokens: mx.array) -> mx.array:
    """(B, chunks, …) as (B, 1, 1, chunks, …), float32."""
    return of_tokens[:, None, None].astype(mx.float32)


def _eye() -> mx.array:
    return mx.eye(CHUNK)


def _lower() -> mx.array:
    return mx.tri(CHUNK, k=-1).astype(mx.bool_)


def _levels() -> list[mx.array]:
    """(C, C) masks that together are strictly lower: token i in the second half of a block of 2, 4,
    …, C tokens, and j in its first half.
    """
    place = mx.arange(CHUNK)
    masks, size = [], 1
    while size < CHUNK:
        half, block = place // size, place // (2 * size)
        pair = (block[:, None] == block) & (half[:, None] > half)
        masks.append(pair.astype(mx.float32))
        size *= 2
    return masks

"""Linear attention in chunks: the matrix-valued recurrence behind gated delta nets and SSD layers.

The recurrence, for each head, with a state S of shape (key size, value size):

    S = diag(decay_t) S
    u_t = beta_t (v_t - Sᵀ k_t)        with the delta rule; without it u_t = v_t
    S = S + k_t u_tᵀ
    y_t = Sᵀ q_t

Token by token it is thousands of tiny operations whose intermediates all wait for the backward
pass. Here it is computed in chunks of 64 tokens: within a chunk as matrix products (the UT
transform of "Gated Delta Networks", Yang et al. 2024, section 3.3; without the delta rule the dual
form of "Transformers are SSMs", Dao and Gu 2024, section 6; with a decay for each key channel as in
"Kimi Linear", 2025), from chunk to chunk through the state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx

from safetraind.worker.training.recurrence.decays import CHUNK, Decays, by_chunk, levels
from safetraind.worker.training.recurrence.dual_scan import dual_span, dual_span_gradient
from safetraind.worker.training.recurrence.spans import in_spans

# Tokens that are computed in one go, and again in the backward pass. The dual form has many heads:
# on a CPU, what twice as many tokens make no longer stays in the cache, and takes a sixth longer.
SPAN, DUAL_SPAN = 256, 128


def chunked_scan(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    log_decay: mx.array,
    beta: mx.array | None = None,
    state: mx.array | None = None,
    segments: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """Return the outputs y (B, T, H, V) and the last state (B, H, K, V), both float32.

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

    dual = beta is None and log_decay.ndim == 3
    tokens = DUAL_SPAN if dual else SPAN

    def at(function: Callable[..., list[mx.array]]) -> Callable[[int], Callable[..., Any]]:
        return lambda start: partial(function, _bordered(segments, start, tokens))

    if dual:
        y, state = in_spans(at(dual_span), state, parts, tokens, at(dual_span_gradient))
    else:
        y, state = in_spans(at(_span), state, parts, tokens)
    return y[:, :length], state.reshape(batch, heads, keys, values)


def _padded(part: mx.array, padding: int) -> mx.array:
    """Pad with zeros at the end. They change nothing: no decay, nothing written, nothing read."""
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
    """Return y (B, T, H, V) of a few whole chunks, and the state after them (B, G, H / G, K, V),
    float32.

    Whatever does not depend on the state is computed for all chunks at once. Arrays are (B, groups,
    heads of a group, chunks, tokens of a chunk, …).
    """
    groups = k.shape[2]
    q, k, v = (by_chunk(part, groups) for part in (q, k, v))
    log_decay = by_chunk(log_decay if log_decay.ndim == 4 else log_decay[..., None], groups)
    decays = Decays(log_decay, segments)
    read = decays.within(q, k) + (q * k).sum(-1, keepdims=True) * _eye()
    seen, kept = q * decays.from_start, (k * decays.to_end).swapaxes(-1, -2)
    taken: list[mx.array] = []
    if beta is not None:
        beta = by_chunk(beta[..., None], groups)
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


def _each(chunks: mx.array) -> list[mx.array]:
    """Return the chunks one by one. They are split, since the gradient of an index would be filled
    up with zeros.
    """
    return [chunk.squeeze(3) for chunk in mx.split(chunks, chunks.shape[3], axis=3)]


def _inverse(lower: mx.array) -> mx.array:
    run: Any = mx.custom_function(_by_blocks)
    run.vjp(_of_inverse)
    inverse: mx.array = run(lower)
    return inverse


def _by_blocks(lower: mx.array) -> mx.array:
    """Return the inverse of I + `lower` (…, C, C), strictly lower, by blocks of 1, 2, 4, … tokens.

    (Its Neumann series, one product shorter, loses all digits where the keys are alike.)
    """
    masks = levels()
    inverse = _eye() - lower * masks[0]
    for mask in masks[1:]:
        inverse = inverse - inverse @ (lower * mask) @ inverse
    return inverse


def _of_inverse(_: mx.array, cotangent: mx.array, inverse: mx.array) -> mx.array:
    turned = inverse.swapaxes(-1, -2)
    return -(turned @ cotangent @ turned)


def _bordered(segments: mx.array | None, start: int, tokens: int) -> mx.array | None:
    """Return the segments of a span, and before them that of the token before: (B, 1 + T).

    Before the first token comes its own segment: a state that is handed in belongs to it.
    """
    if segments is None:
        return None
    before = segments[:, max(0, start - 1)][:, None]
    return mx.concatenate([before, segments[:, start : start + tokens]], axis=1)


def _eye() -> mx.array:
    return mx.eye(CHUNK)

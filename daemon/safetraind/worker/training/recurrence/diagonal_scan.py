"""Recurrences of single numbers, h_t = a_t h_{t-1} + b_t: Mamba's selective scan, Griffin's RG-LRU.

All tokens of a span are computed at once by doubling (Hillis and Steele 1986): after step s every
token holds the sum over the 2^s tokens up to itself.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.core as mx

from safetraind.worker.training.recurrence.spans import Span, in_spans

SPAN = 32  # tokens; each holds a state of its own while its span is computed


def diagonal_scan(
    a: mx.array, b: mx.array, state: mx.array | None = None, starts: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """Return the states h (B, T, D) of every token and the last one (B, D), for `a` and `b` (B, T,
    D).

    `state` comes before the first token (zeros where it is None). `starts` (B, T), 1 where a sample
    begins: what came before counts for nothing there.
    """
    if starts is not None:
        a = mx.where(starts[..., None] > 0, mx.array(0, a.dtype), a)
    if state is not None:
        first = b[:, :1] + a[:, :1] * state[:, None]
        b = mx.concatenate([first, b[:, 1:]], axis=1)
    h = scan(a, b)
    return h, h[:, -1]


def selective_scan(
    x: mx.array,
    delta: mx.array,
    a: mx.array,
    b: mx.array,
    c: mx.array,
    state: mx.array | None = None,
    starts: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """Return the outputs (B, T, D) of "Mamba", Gu and Dao 2023, equation 2, and the last state (B,
    D, N).

    h_t = exp(delta_t a) h_{t-1} + delta_t x_t b_t and y_t = h_t c_t, for `x` and `delta` (B, T, D),
    `a` (D, N), `b` and `c` (B, T, N). `state` and `starts`: see `diagonal_scan`. Float32 within.
    """
    if state is None:
        state = mx.zeros((x.shape[0], *a.shape))
    if starts is None:
        starts = mx.zeros(x.shape[:2])
    left = 1 - starts.astype(mx.float32)

    def span_at(_: int) -> Span:
        return partial(_selective, a)

    return in_spans(span_at, state.astype(mx.float32), [x, delta, b, c, left], SPAN)


def _selective(
    a: mx.array,
    state: mx.array,
    x: mx.array,
    delta: mx.array,
    b: mx.array,
    c: mx.array,
    left: mx.array,
) -> list[mx.array]:
    delta = delta.astype(mx.float32)
    decays = mx.exp(delta[..., None] * a) * left[..., None, None]
    written = (delta * x)[..., None] * b[:, :, None]
    written = mx.concatenate([written[:, :1] + decays[:, :1] * state[:, None], written[:, 1:]], 1)
    h = scan(decays, written)
    return [(h @ c[..., None].astype(mx.float32)).squeeze(-1), h[:, -1]]


def scan(a: mx.array, b: mx.array) -> mx.array:
    """Return h_t = a_t h_{t-1} + b_t along axis 1 for `a` and `b` (B, T, …), from h = 0 before the
    first token; same shape.
    """
    run: Any = mx.custom_function(_doubling)
    run.vjp(_from_the_end)
    h: mx.array = run(a, b)
    return h


def _doubling(a: mx.array, b: mx.array) -> mx.array:
    step = 1
    while step < b.shape[1]:
        b = b + a * _moved(b, step)
        a = a * _moved(a, step)
        step *= 2
    return b


def _from_the_end(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, h: mx.array
) -> tuple[mx.array, mx.array]:
    """Return the same recurrence from the end: what h_t is worth, by itself and through h_{t+1}."""
    after = mx.concatenate([primals[0][:, 1:], mx.zeros_like(primals[0][:, :1])], axis=1)
    worth = _doubling(after[:, ::-1], cotangent[:, ::-1])[:, ::-1]
    return worth * _moved(h, 1), worth


def _moved(values: mx.array, step: int) -> mx.array:
    """Return the tokens' values `step` tokens later, zeros before."""
    return mx.concatenate([mx.zeros_like(values[:, :step]), values[:, :-step]], axis=1)

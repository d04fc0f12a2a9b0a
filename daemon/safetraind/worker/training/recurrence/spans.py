"""A recurrence over a long row, span by span, of which only the states at the borders are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx

# From a state and the span's parts to the outputs (B, span, …) and the next state.
Span = Callable[..., list[mx.array]]
# From a state and the parts, and the gradients of outputs and next state, to those of the first.
Gradient = Callable[[Sequence[mx.array], mx.array, mx.array], list[mx.array]]


def in_spans(
    span_at: Callable[[int], Span],
    state: mx.array,
    parts: Sequence[mx.array],
    length: int,
    gradient_at: Callable[[int], Gradient] | None = None,
) -> tuple[mx.array, mx.array]:
    """Return the outputs (B, T, …) of every token, and the state after the last one.

    `parts`, arrays (B, T, …), are cut into spans of `length` tokens, and `span_at(start)` computes
    the one that begins at `start`. In the backward pass each span is computed again, from the state
    it began with. So memory grows with T by inputs, outputs and border states only. Autograd would
    keep every intermediate, and fill up the gradient of each slice to the whole row.
    `gradient_at(start)` computes a span's gradient; where it is None, autograd does.
    """
    starts = range(0, parts[0].shape[1], length)

    def cut(part: mx.array, start: int) -> mx.array:
        return part[:, start : start + length]

    def forward(state: mx.array, *parts: mx.array) -> list[mx.array]:
        found, borders = [], []
        for start in starts:
            borders.append(state)
            y, state = span_at(start)(state, *(cut(part, start) for part in parts))
            found.append(y)
        return [mx.concatenate(found, axis=1), state, *borders]

    def backward(
        primals: Sequence[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]
    ) -> list[mx.array]:
        of_y, of_state, *_ = cotangents
        gradients: list[list[mx.array]] = [[] for _ in primals[1:]]
        for start, border in reversed(list(zip(starts, outputs[2:], strict=True))):
            own = [border, *(cut(part, start) for part in primals[1:])]
            # Without this order MLX may compute several spans at once, and hold all their arrays.
            own = mx.depends(own, [of_state])
            gradient = gradient_at(start) if gradient_at else partial(_by_autograd, span_at(start))
            of_state, *found = gradient(own, cut(of_y, start), of_state)
            for one, part in zip(gradients, found, strict=True):
                one.insert(0, part)
        return [of_state, *(mx.concatenate(one, axis=1) for one in gradients)]

    run: Any = mx.custom_function(forward)
    run.vjp(backward)
    y, last, *_ = run(state, *parts)
    return y, last


def _by_autograd(
    span: Span, own: Sequence[mx.array], of_y: mx.array, of_state: mx.array
) -> list[mx.array]:
    return mx.vjp(span, list(own), [of_y, of_state])[1]

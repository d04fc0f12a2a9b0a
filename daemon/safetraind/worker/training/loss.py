"""The loss: cross-entropy summed over the predictions that count, whole or in chunks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from safetraind.worker.training.heads import Split

Head = Callable[[mx.array], mx.array]


def summed_loss(
    split: Split,
    inputs: mx.array,
    places: mx.array,
    targets: mx.array,
    weights: mx.array,
    cache: list[Any] | None = None,
    chunk: int = 0,
) -> mx.array:
    """The sum of the cross-entropies of one batch (see `batches.Batch`), a float32 scalar.

    Only the predictions that count go through the head. With `chunk` they go through it that many
    at a time, and again on the way back, so that the logits of a single chunk exist at once.
    """
    hidden = split.body(inputs, cache)
    hidden = hidden.reshape(-1, hidden.shape[-1])[places]
    if not chunk or chunk >= len(targets):
        return _cross_entropy(split.head, hidden, targets, weights)
    return _in_chunks(split.head, hidden, targets, weights, chunk)


def _cross_entropy(head: Head, hidden: mx.array, targets: mx.array, weights: mx.array) -> mx.array:
    losses = nn.losses.cross_entropy(head(hidden), targets).astype(mx.float32)
    return (losses * weights).sum()


def _in_chunks(
    head: Head, hidden: mx.array, targets: mx.array, weights: mx.array, chunk: int
) -> mx.array:
    """As `_cross_entropy`, with a gradient of its own that goes chunk by chunk."""
    loss_of, gradient_of = by_chunks(head, targets, weights, chunk)
    whole: Any = mx.custom_function(loss_of)
    whole.vjp(lambda rows, cotangent, _: gradient_of(rows, cotangent))
    loss: mx.array = whole(hidden)
    return loss


def by_chunks(
    head: Head, targets: mx.array, weights: mx.array, chunk: int
) -> tuple[Callable[[mx.array], mx.array], Callable[[mx.array, mx.array], mx.array]]:
    """The loss of hidden rows, and its gradient for them times a cotangent, chunk by chunk.

    `mx.depends` makes a chunk wait for the one before it; MLX would otherwise be free to compute
    several at once and hold all their logits. Targets and weights are closed over: they have no
    gradient, and `head` has no trainable weights (`heads.split` sees to it).
    """
    parts = [slice(start, start + chunk) for start in range(0, len(targets), chunk)]

    def part_loss(part: slice, rows: mx.array) -> mx.array:
        return _cross_entropy(head, rows, targets[part], weights[part])

    def loss_of(rows: mx.array) -> mx.array:
        total = mx.array(0.0)
        for part in parts:
            total = total + part_loss(part, mx.depends([rows[part]], [total])[0])
        return total

    def gradient_of(rows: mx.array, cotangent: mx.array) -> mx.array:
        gradients: list[mx.array] = []
        for part in parts:
            (held,) = mx.depends([rows[part]], gradients[-1:] or [cotangent])
            gradients += mx.vjp(partial(part_loss, part), [held], [cotangent])[1]
        return mx.concatenate(gradients)

    return loss_of, gradient_of

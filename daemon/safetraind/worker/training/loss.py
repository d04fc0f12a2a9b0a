"""The loss: cross-entropy summed over the predictions that count, whole or in chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from safetraind.worker.training.model_split import Split

Head = Callable[[mx.array], mx.array]


def summed_loss(
    split: Split,
    inputs: mx.array,
    places: mx.array,
    targets: mx.array,
    weights: mx.array,
    cache: list[Any] | None = None,
    chunk: int = 0,
    *,
    learns: bool = True,
) -> mx.array:
    """Return the sum of the cross-entropies of one batch (see `batches.Batch`), a float32 scalar.

    Only the predictions that count go through the head. With `chunk` they go through it that many
    at a time, so that the logits of a single chunk exist at once; where it `learns` their gradient
    is made in the same passage.
    """
    hidden = split.body(inputs, cache)
    hidden = hidden.reshape(-1, hidden.shape[-1])[places]
    if not chunk or chunk >= len(targets):
        return _cross_entropy(split.head, hidden, targets, weights)
    chunked = Chunked(split.head, targets, weights, chunk)
    return _with_gradient(chunked, hidden) if learns else chunked.loss(hidden)


def _cross_entropy(head: Head, hidden: mx.array, targets: mx.array, weights: mx.array) -> mx.array:
    losses = nn.losses.cross_entropy(head(hidden), targets).astype(mx.float32)
    return (losses * weights).sum()


def _with_gradient(chunked: Chunked, hidden: mx.array) -> mx.array:
    """Return the loss. Its gradient is computed in the same pass."""

    def scaled(
        rows: mx.array, cotangents: Sequence[mx.array], found: Sequence[mx.array]
    ) -> mx.array:
        return (found[1] * cotangents[0]).astype(rows.dtype)

    both: Any = mx.custom_function(lambda rows: list(chunked.loss_and_gradient(rows)))
    both.vjp(scaled)
    loss: mx.array = both(hidden)[0]
    return loss


@dataclass(frozen=True, slots=True)
class Chunked:
    """The loss of hidden states (M, D), computed in chunks of `chunk` predictions.

    `targets` (M,): vocabulary ids; `weights` (M,): 1, or 0 for filling. Neither has a gradient, and
    `head` has no trainable weights (`model_split.split` ensures it). `mx.depends` makes each chunk
    wait for the one before it, because MLX could otherwise compute several at once and hold all
    their logits.
    """

    head: Head
    targets: mx.array
    weights: mx.array
    chunk: int

    def loss(self, rows: mx.array) -> mx.array:
        """Return the summed loss of `rows` (M, D), a float32 scalar."""
        total = mx.array(0.0)
        for part in self._parts():
            total = total + self._loss_of(part, mx.depends([rows[part]], [total])[0])
        return total

    def loss_and_gradient(self, rows: mx.array) -> tuple[mx.array, mx.array]:
        """Return the summed loss, a float32 scalar, and its gradient for `rows`, both (M, D)."""
        total, gradients = mx.array(0.0), list[mx.array]()
        for part in self._parts():
            (held,) = mx.depends([rows[part]], [total, *gradients[-1:]])
            (loss,), (gradient,) = mx.vjp(partial(self._loss_of, part), [held], [mx.array(1.0)])
            total = total + loss
            gradients.append(gradient)
        return total, mx.concatenate(gradients)

    def _parts(self) -> list[slice]:
        starts = range(0, len(self.targets), self.chunk)
        return [slice(start, start + self.chunk) for start in starts]

    def _loss_of(self, part: slice, rows: mx.array) -> mx.array:
        return _cross_entropy(self.head, rows, self.targets[part], self.weights[part])

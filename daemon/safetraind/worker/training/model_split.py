"""Splits a language model into its body, which computes hidden states, and its head, which computes
logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

_BODIES = ("model", "backbone", "transformer")  # what mlx-lm's models call their body
_NESTED = ("language_model", "model")  # where a model that also sees keeps its language model


@dataclass(frozen=True, slots=True)
class Split:
    """A model as two functions. `chunks`: the head may be computed in pieces."""

    body: Callable[[mx.array, list[object] | None], mx.array]
    head: Callable[[mx.array], mx.array]
    chunks: bool


def split(model: nn.Module) -> Split:
    """Return the parts of `model`, if a short pass shows that they compute the same as the whole.

    The head is all that the language model does after its body: an output matrix or the tied
    embedding, and scaling or capping where it has them. Where the parts are not all, or something
    beside the layers is trained, the model is its own body, and its result are the logits.
    """
    if _trains_layers_only(model):
        for owner, name in _candidates(model):
            found = Split(_body(owner, name), _Head(owner, name), chunks=True)
            if _same(model, found):
                return found
    return Split(
        lambda tokens, cache: model(tokens, cache=cache), lambda logits: logits, chunks=False
    )


def _trains_layers_only(model: nn.Module) -> bool:
    """Return whether the head surely has no trainable weights: its gradient would be lost."""
    in_layers = sum(len(tree_flatten(layer.trainable_parameters())) for layer in model.layers)
    return len(tree_flatten(model.trainable_parameters())) == in_layers


def _candidates(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield language models inside `model` from the outermost, each with the name of its body."""
    owner: Any = model
    while owner is not None:
        yield from ((owner, name) for name in _BODIES if isinstance(owner.get(name), nn.Module))
        nested = (owner.get(name) for name in _NESTED)
        owner = next((part for part in nested if isinstance(part, nn.Module)), None)


def _body(owner: nn.Module, name: str) -> Callable[[mx.array, list[object] | None], mx.array]:
    return lambda tokens, cache: owner[name](tokens, cache=cache)


@dataclass(frozen=True, slots=True)
class _Head:
    """Runs `owner` with its body replaced by one that hands out given hidden states."""

    owner: nn.Module
    name: str

    def __call__(self, hidden: mx.array) -> mx.array:
        """Return logits (M, V) of hidden states (M, D)."""
        body = _Given(self.owner[self.name], hidden[None])
        # An attribute shadows the module's entry of that name, and leaves its weights as they are.
        object.__setattr__(self.owner, self.name, body)
        try:
            logits: mx.array = self.owner(mx.zeros((1, len(hidden)), mx.int32))
            return logits[0]
        finally:
            object.__delattr__(self.owner, self.name)


class _Given:
    """Stands in for a body: returns the given hidden states, and has the body's own attributes."""

    def __init__(self, body: nn.Module, hidden: mx.array) -> None:
        self._body, self._hidden = body, hidden

    def __call__(self, *_: Any, **__: Any) -> mx.array:
        return self._hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


def _same(model: nn.Module, parts: Split) -> bool:
    """Return whether body and head together are the model, and the head works on each token by
    itself.
    """
    tokens = mx.arange(8)[None]
    try:
        hidden, expected = parts.body(tokens, None)[0], model(tokens)[0]
        found, backwards = parts.head(hidden), parts.head(hidden[::-1])[::-1]
        return bool(mx.array_equal(found, expected) and mx.allclose(backwards, found, 1e-2, 1e-2))
    except Exception:  # a model's own code may do anything with parts that it does not expect
        return False

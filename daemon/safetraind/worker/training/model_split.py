"""Takes a language model apart: the body gives hidden states, the head makes logits of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten


@dataclass(frozen=True, slots=True)
class Split:
    """A model as two functions. `chunks`: the head may be computed in pieces."""

    body: Callable[[mx.array, list[object] | None], mx.array]
    head: Callable[[mx.array], mx.array]
    chunks: bool


def split(model: nn.Module) -> Split:
    """The parts of `model`, where its own result shows that they are all of it.

    mlx-lm's models keep their body in `model` and end in `lm_head` or in the tied embedding; some
    do more (scale, cap, drop a part). One short pass decides. Where the parts are not all, or the
    head itself is trained, the model is its own body, and what it gives are the logits.
    """
    head = _head(model)
    if head is not None and _same(model, head):
        return Split(lambda tokens, cache: model.model(tokens, cache=cache), head, chunks=True)
    return Split(
        lambda tokens, cache: model(tokens, cache=cache), lambda logits: logits, chunks=False
    )


def _head(model: nn.Module) -> Callable[[mx.array], mx.array] | None:
    if "model" not in model:
        return None
    last = model.lm_head if "lm_head" in model else model.model.get("embed_tokens")
    if last is None or tree_flatten(last.trainable_parameters()):
        return None
    if last is model.get("lm_head"):
        return lambda hidden: model.lm_head(hidden)
    return lambda hidden: model.model.embed_tokens.as_linear(hidden)


def _same(model: nn.Module, head: Callable[[mx.array], mx.array]) -> bool:
    tokens = mx.arange(8)[None]
    try:
        found, expected = head(model.model(tokens, cache=None)), model(tokens)
    except (TypeError, ValueError, AttributeError):
        return False
    return found.shape == expected.shape and bool(mx.array_equal(found, expected))

"""Runs a short forward and backward pass, which shows whether a model with its adapter trains."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from safetrain_shared.errors import InvalidSetting
from safetraind.worker.training.recurrence.replacements import in_chunks

_TOKENS = 8
_ROUNDING = 1e-2  # of a gradient's length; 16-bit weights compute with three digits
# What MLX says of an operation that has no gradient, or is missing on this device; any other
# RuntimeError is of memory, and is not the model's fault.
_NOT_POSSIBLE = ("vjp", "jvp", "metal_kernel", "not implemented")


Gradients = dict[str, mx.array]


def check(model: nn.Module) -> None:
    """Raise InvalidSetting where a forward or backward pass over a few tokens ends in an error.

    A model's own code may fail in any way once adapters stand in the place of its layers.
    """
    try:
        found = gradients(model)
    except RuntimeError as error:
        if not any(sign in str(error).lower() for sign in _NOT_POSSIBLE):
            raise
        raise impossible(error) from error
    except Exception as error:
        raise impossible(error) from error
    if not found:
        raise InvalidSetting("train.impossible", reason="no gradient")


def gradients(model: nn.Module) -> Gradients:
    """Return the gradient of the loss over a few tokens, by the names of the trainable weights,
    each of its weight's shape.
    """

    def loss(tokens: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(tokens), tokens, reduction="mean")

    model.train()
    with in_chunks():
        value, found = nn.value_and_grad(model, loss)(mx.arange(_TOKENS)[None])
        mx.eval(value, found)
    return dict(tree_flatten(found))


def alike(found: Gradients, expected: Gradients) -> bool:
    """Return whether two gradients of the same weights are equal within rounding.

    That is, whether the norm of their difference is at most `_ROUNDING` of the norm of `expected`.
    """
    length, distance = mx.array(0.0), mx.array(0.0)
    for name, gradient in expected.items():
        difference = found[name].astype(mx.float32) - gradient.astype(mx.float32)
        length = length + gradient.astype(mx.float32).square().sum()
        distance = distance + difference.square().sum()
    return bool((distance <= _ROUNDING**2 * length).item())


def impossible(error: Exception) -> InvalidSetting:
    """Return the refusal of a model that cannot be trained, with the first line of `error`."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InvalidSetting("train.impossible", reason=lines[0][:200])

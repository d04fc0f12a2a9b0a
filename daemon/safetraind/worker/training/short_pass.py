"""One short pass there and back: whether a model with its adapter trains at all."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from safetrain_shared.errors import InvalidSetting
from safetraind.worker.training.recurrence.replacements import in_chunks

_TOKENS = 8
# What MLX says of an operation that has no way back, or no way there on this device; any other
# RuntimeError is of memory, and is not the model's fault.
_NOT_POSSIBLE = ("vjp", "jvp", "metal_kernel", "not implemented")


def check(model: nn.Module) -> None:
    """Raises InvalidSetting where a forward or backward pass over a few tokens ends in an error.

    A model's own code may fail in any way once adapters stand in the place of its layers.
    """

    def loss(tokens: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(tokens), tokens, reduction="mean")

    model.train()
    try:
        with in_chunks():
            value, gradients = nn.value_and_grad(model, loss)(mx.arange(_TOKENS)[None])
            mx.eval(value, gradients)
    except RuntimeError as error:
        if not any(sign in str(error).lower() for sign in _NOT_POSSIBLE):
            raise
        raise _impossible(error) from error
    except Exception as error:
        raise _impossible(error) from error
    if not tree_flatten(gradients):
        raise InvalidSetting("train.impossible", reason="no gradient")


def _impossible(error: Exception) -> InvalidSetting:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InvalidSetting("train.impossible", reason=lines[0][:200])

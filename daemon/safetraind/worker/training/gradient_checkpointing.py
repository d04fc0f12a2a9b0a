"""Gradient checkpointing: layers that compute their activations again instead of keeping them."""

from __future__ import annotations

from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from safetrain_shared.errors import InvalidSetting
from safetraind.worker.training import short_pass


def recompute_layers(model: nn.Module) -> None:
    """Make every layer of `model` that holds trainable weights recompute its activations.

    (Layers below the first of those keep none anyway.) A layer's class changes to a subclass, so
    names of weights stay, and a second call does nothing. Raises InvalidSetting for a model that
    would get wrong gradients so: one with dropout of its own, which would draw another mask in the
    backward pass, or one whose layers pass on more than their result.
    """
    if has_own_dropout(model):
        raise InvalidSetting("train.own_dropout")
    if not can_recompute(model):
        raise InvalidSetting("train.no_checkpointing")
    _recompute(model)


def can_recompute(model: nn.Module) -> bool:
    """Return whether gradients stay the same; one short pass each way decides. Changes nothing."""
    if has_own_dropout(model):
        return False
    kinds = [type(layer) for layer in model.layers]
    expected = short_pass.gradients(model)
    try:
        _recompute(model)
        return short_pass.alike(short_pass.gradients(model), expected)
    except Exception:  # a layer may be called in a way that MLX cannot compute again
        return False
    finally:
        for layer, kind in zip(model.layers, kinds, strict=True):
            layer.__class__ = kind


def _recompute(model: nn.Module) -> None:
    for layer in model.layers:
        if tree_flatten(layer.trainable_parameters()):
            kind: Any = type(layer)
            layer.__class__ = _recomputing(kind)


def has_own_dropout(model: nn.Module) -> bool:
    """Return whether the model drops values by itself, beside its adapter."""
    return any(isinstance(m, nn.Dropout) and m._p_1 < 1 for m in model.modules())


@cache
def _recomputing(kind: Any) -> Any:
    if getattr(kind, "recomputes", False):
        return kind

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return kind.__call__(self, *args, **kwargs)

        def inner(parameters: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            self.update(parameters)
            return kind.__call__(self, *args, **kwargs)

        return mx.checkpoint(inner)(self.trainable_parameters(), *args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": call, "recomputes": True})

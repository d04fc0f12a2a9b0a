"""Rehearses a training step without computing it, and says what memory it would take at its peak.

The graph rehearsed is the trainer's own step on this device, so no architecture needs a formula.
What MLX cannot export is laid out by hand: a layer that is computed again on the way back, and the
loss in chunks, of which one is alive at a time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from safetrain_shared.settings import TrainingSettings
from safetraind.worker.probing.device import kind
from safetraind.worker.probing.graph import Graph, fused, trace
from safetraind.worker.probing.playback import peak
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.heads import Split
from safetraind.worker.training.loss import summed_loss

Data = tuple[mx.array, mx.array, mx.array, mx.array]  # inputs, places, targets, weights

_ADAM_MOMENTS = 2
# What the layout by hand misses of recomputed layers: measured steps took 4 to 6 % more.
_RECOMPUTING = 1.05


class Rehearsal:
    """Rehearses steps of a model that has its adapter on it (but no recomputing layers)."""

    def __init__(self, model: nn.Module, split: Split) -> None:
        self._model = model
        self._split = split
        named = _named(model.parameters())
        self._names = [name for name, _ in named]
        self._arrays = [array for _, array in named]
        self._trained = dict(_named(model.trainable_parameters()))
        self._compiles = will_compile()

    def peak(self, settings: TrainingSettings, batch: Batch) -> int:
        """Bytes of MLX's peak in a step whose largest micro-batch is `batch`. Evaluates nothing."""
        graph = self._trace(settings, batch)
        trained = sum(array.nbytes for array in self._trained.values())
        there = sum(array.nbytes for array in self._arrays) + _ADAM_MOMENTS * trained
        there += settings.gradient_accumulation > 1 and trained
        in_step = there + peak(fused(graph) if self._compiles else graph)
        if settings.gradient_checkpointing:
            in_step = round(in_step * _RECOMPUTING)
        # Applying the gradients: clipped ones, and the new moments and weights beside the old.
        in_update = there + trained * (2 + _ADAM_MOMENTS + 1)
        return max(in_step, in_update)

    def _trace(self, settings: TrainingSettings, batch: Batch) -> Graph:
        learned = len(batch.places)
        if settings.loss_chunk and self._split.chunks:
            learned = min(learned, settings.loss_chunk)
        data = [
            mx.array(batch.inputs),
            mx.array(batch.places[:learned]),
            mx.array(batch.targets[:learned]),
            mx.array(batch.weights[:learned]),
        ]
        accumulated = list(self._trained.values()) if settings.gradient_accumulation > 1 else []
        weights = len(self._arrays)

        def step(*given: mx.array) -> list[mx.array]:
            self._put(given[:weights])
            inputs = cast("Data", given[weights : weights + len(data)])
            gradient = _recomputed if settings.gradient_checkpointing else _straight
            loss, gradients = gradient(self._model, self._split, inputs)
            older = given[weights + len(data) :]
            added = [old + new for old, new in zip(older, gradients, strict=False)]
            return [loss, *(added or gradients)]

        try:
            return trace(step, [*self._arrays, *data, *accumulated])
        finally:
            self._put(self._arrays)

    def _put(self, arrays: Sequence[mx.array]) -> None:
        pairs = list(zip(self._names, arrays, strict=True))
        self._model.update(tree_unflatten(pairs))


def _named(tree: Any) -> list[tuple[str, mx.array]]:
    """The arrays of a tree with their names, in order."""
    return cast("list[tuple[str, mx.array]]", tree_flatten(tree))


def will_compile() -> bool:
    """Whether `mx.compile` does anything here: on the CPU it needs a compiler."""
    if os.environ.get("MLX_DISABLE_COMPILE"):
        return False
    return kind() != "cpu" or shutil.which("g++") is not None


def _straight(model: nn.Module, split: Split, data: Data) -> tuple[mx.array, list[mx.array]]:
    """Loss and gradients with all activations kept."""

    def loss() -> mx.array:
        return summed_loss(split, *data)

    value, gradients = nn.value_and_grad(model, loss)()
    return value, [array for _, array in _named(gradients)]


def _recomputed(model: nn.Module, split: Split, data: Data) -> tuple[mx.array, list[mx.array]]:
    """Loss and gradients as `recompute` has them: a layer's input is kept, the rest made again.

    On the way there the trained layers' results carry no gradient. What the last of them would get
    is taken from a zero added to it; from there each layer is computed again from its input, made
    to wait for the gradient behind it, as `mx.checkpoint` does.
    """
    with _recording(model) as recorded:

        def loss(zero: mx.array) -> mx.array:
            recorded.zero = zero
            return summed_loss(split, *data)

        rows, width = data[0].shape
        probe = mx.zeros((rows, width, _hidden(model)), _dtype(model))
        (value,), (cotangent,) = mx.vjp(loss, [probe], [mx.array(1.0)])
    gradients: list[mx.array] = []
    for layer, hidden, args, kwargs in reversed(recorded.calls):
        parameters = _named(layer.trainable_parameters())
        names = [name for name, _ in parameters]

        def again(
            *given: mx.array,
            layer: Any = layer,
            names: list[str] = names,
            args: Any = args,
            kwargs: Any = kwargs,
        ) -> mx.array:
            layer.update(tree_unflatten(list(zip(names, given[1:], strict=True))))
            return layer(given[0], *args, **kwargs)

        own = [array for _, array in parameters]
        held = mx.depends([hidden, *own], [cotangent])
        _, parts = mx.vjp(again, held, [cotangent.astype(hidden.dtype)])
        layer.update(tree_unflatten(list(zip(names, own, strict=True))))
        cotangent, gradients = parts[0], [*parts[1:], *gradients]
    return value, gradients


class _Recorded:
    """The calls of trained layers on the way there, and the zero that the last one adds."""

    def __init__(self, last: nn.Module) -> None:
        self.last = last
        self.zero = mx.array(0.0)
        self.calls: list[tuple[nn.Module, mx.array, Any, Any]] = []


@contextmanager
def _recording(model: nn.Module) -> Iterator[_Recorded]:
    trained = [layer for layer in model.layers if _named(layer.trainable_parameters())]
    recorded = _Recorded(trained[-1])
    kinds = [type(layer) for layer in trained]
    for layer in trained:
        layer.__class__ = _recorder(type(layer), recorded)
    try:
        yield recorded
    finally:
        for layer, original in zip(trained, kinds, strict=True):
            layer.__class__ = original


def _recorder(original: type, recorded: _Recorded) -> type:
    def call(self: Any, hidden: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        recorded.calls.append((self, hidden, args, kwargs))
        result = mx.stop_gradient(original.__call__(self, hidden, *args, **kwargs))
        return result + recorded.zero if self is recorded.last else result

    return type(original.__name__, (original,), {"__call__": call})


def _hidden(model: nn.Module) -> int:
    return int(model.args.hidden_size)


def _dtype(model: nn.Module) -> mx.Dtype:
    """The type that the layers' results have: that of the norms' weights."""
    vectors = [a for _, a in _named(model.parameters()) if a.ndim == 1]
    floats = [a.dtype for a in vectors if mx.issubdtype(a.dtype, mx.floating)]
    return mx.float32 if mx.float32 in floats or not floats else floats[0]

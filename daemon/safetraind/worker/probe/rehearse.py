"""Rehearses a training step without computing it, and says what memory it would take at its peak.

The graph rehearsed is the trainer's own step on this device, so no architecture needs a formula.
What MLX cannot export is laid out by hand: a layer that is computed again on the way back, and the
loss in chunks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from safetrain_shared.settings import TrainingSettings
from safetraind.worker.probe.device import kind
from safetraind.worker.probe.graph import Graph, fused, trace
from safetraind.worker.probe.playback import peak
from safetraind.worker.training import adapters, model_split
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.loss import Chunked, summed_loss
from safetraind.worker.training.packing import Packing

# What is differentiated, and the loss itself, which differ where the loss has its own gradient.
Loss = Callable[[], tuple[mx.array, mx.array]]

_ADAM_MOMENTS = 2
_LEARNED = ("targets", "weights")


class Rehearsal:
    """Rehearses steps of one model with one adapter."""

    def __init__(self, model: nn.Module, settings: TrainingSettings) -> None:
        """Puts the adapter of `settings` on `model`. Raises InvalidSetting as the trainer does."""
        self._model = model
        self._keys = adapters.attach(model, settings, seed=0)
        self._dropouts = adapters.dropouts(model)
        self._split = model_split.split(model)
        self._packing = Packing(model) if settings.packing else None
        model.train()
        named = _named(model.parameters())
        self._names = [name for name, _ in named]
        self._arrays = [array for _, array in named]
        self._trained = [array for _, array in _named(model.trainable_parameters())]
        self._compiles, self._gpu = will_compile(), kind() != "cpu"

    def peak(self, settings: TrainingSettings, batch: Batch) -> int:
        """Bytes of MLX's peak in a step whose largest micro-batch is `batch`. Evaluates nothing.

        `settings` may differ from the adapter's in what is not part of it: accumulation, gradient
        checkpointing, the loss in chunks. Raises ValueError for a model that cannot be traced, and
        whatever a model's own code raises.
        """
        gradient = self._recomputed if settings.gradient_checkpointing else self._straight
        older = self._trained if settings.gradient_accumulation > 1 else []

        def step(loss: Loss, older: Sequence[mx.array]) -> list[mx.array]:
            value, gradients = gradient(loss)
            added = [old + new for old, new in zip(older, gradients, strict=False)]
            return [value, *(added or gradients)]

        graph = self._trace(batch, settings.loss_chunk, step, older)
        trained = sum(array.nbytes for array in self._trained)
        there = self._there() + sum(array.nbytes for array in older)
        in_step = there + self._played(graph)
        # Applying the gradients: clipped ones, and the new moments and weights beside the old.
        in_update = there + trained * (2 + _ADAM_MOMENTS + 1)
        return max(in_step, in_update)

    def evaluation_peak(self, settings: TrainingSettings, batch: Batch) -> int:
        """The same of a batch that is only evaluated, without a way back."""
        self._model.eval()
        try:
            graph = self._trace(batch, settings.loss_chunk, lambda loss, _: [loss()[1]], [])
        finally:
            self._model.train()
        return self._there() + self._played(graph)

    def _played(self, graph: Graph) -> int:
        return peak(fused(graph) if self._compiles else graph, gpu=self._gpu)

    def _there(self) -> int:
        """Bytes of what stays from step to step: weights, adapter, Adam's moments."""
        moments = _ADAM_MOMENTS * sum(array.nbytes for array in self._trained)
        return moments + sum(array.nbytes for array in self._arrays)

    def _trace(
        self,
        batch: Batch,
        chunk: int,
        step: Callable[[Loss, Sequence[mx.array]], list[mx.array]],
        older: Sequence[mx.array],
    ) -> Graph:
        """The graph of `step`, which is given the batch's loss and the gradients so far."""
        data = self._data(batch)
        weights = len(self._arrays)

        def traced(*given: mx.array) -> list[mx.array]:
            self._put(given[:weights])
            arrays = dict(zip(data, given[weights:], strict=False))
            with self._handing(arrays):
                return step(lambda: self._loss(arrays, chunk), given[weights + len(data) :])

        try:
            return trace(traced, [*self._arrays, *data.values(), *older], passing=len(older))
        finally:
            self._put(self._arrays)

    def _data(self, batch: Batch) -> dict[str, mx.array]:
        names = ("inputs", "places", "targets", "weights")
        data = {name: mx.array(getattr(batch, name)) for name in names}
        if batch.segments is not None and batch.positions is not None:
            data["segments"] = mx.array(batch.segments)
            data["positions"] = mx.array(batch.positions)
        if self._dropouts:
            data["keys"] = mx.random.split(mx.random.key(0), self._dropouts)
        return data

    def _loss(self, arrays: dict[str, mx.array], chunk: int) -> tuple[mx.array, mx.array]:
        cache = None
        if self._packing and "segments" in arrays:
            cache = self._packing.caches(arrays["segments"])
        inputs, places, targets, weights = (arrays[n] for n in ("inputs", "places", *_LEARNED))
        if not (chunk and self._split.chunks and chunk < len(targets)):
            loss = summed_loss(self._split, inputs, places, targets, weights, cache)
            return loss, loss
        hidden = self._split.body(inputs, cast("list[object] | None", cache))
        hidden = hidden.reshape(-1, hidden.shape[-1])[places]
        chunked = Chunked(self._split.head, targets, weights, chunk)
        if not self._model.training:
            loss = chunked.loss(hidden)
            return loss, loss
        # A function with a gradient of its own cannot be exported; this has the same one, and its
        # results are siblings, of which MLX computes none before the other, as they are there.
        found = chunked.loss_and_gradient(mx.stop_gradient(hidden))
        loss, gradient = mx.depends(list(found), [hidden])
        return (hidden * mx.stop_gradient(gradient)).sum(), loss

    @contextmanager
    def _handing(self, arrays: dict[str, mx.array]) -> Iterator[None]:
        """Hands the layers dropout keys and positions, as the trainer does."""
        self._keys.rows = arrays.get("keys")
        at = self._packing.at(arrays.get("positions")) if self._packing else nullcontext()
        try:
            with at:
                yield
        finally:
            self._keys.rows = None

    def _put(self, arrays: Sequence[mx.array]) -> None:
        pairs = list(zip(self._names, arrays, strict=True))
        self._model.update(tree_unflatten(pairs))

    def _straight(self, loss: Loss) -> tuple[mx.array, list[mx.array]]:
        """Loss and gradients with all activations kept."""
        (_, value), gradients = nn.value_and_grad(self._model, loss)()
        return value, [array for _, array in _named(gradients)]

    def _recomputed(self, loss: Loss) -> tuple[mx.array, list[mx.array]]:
        """Loss and gradients as `recompute` has them: a layer's input is kept, the rest made again.

        On the way there the trained layers' results carry no gradient. What the last of them would
        get is taken from a zero added to it; from there each layer is computed again.
        """
        with _recording(self._model) as recorded:
            loss()  # only for the shape of what the last layer gives; nothing of it is traced
            zero = mx.zeros_like(recorded.calls[-1].result)
            recorded.calls.clear()

            def from_zero(zero: mx.array) -> mx.array:
                recorded.zero = zero
                differentiated, recorded.loss = loss()
                return differentiated

            _, (cotangent,) = mx.vjp(from_zero, [zero], [mx.array(1.0)])
        gradients: list[mx.array] = []
        for call in reversed(recorded.calls):
            cotangent, own = _made_again(call, cotangent)
            gradients = [*own, *gradients]
        return recorded.loss, gradients


@dataclass(frozen=True, slots=True)
class _Call:
    """A trained layer's call on the way there."""

    layer: nn.Module
    hidden: mx.array
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: mx.array


def _made_again(call: _Call, cotangent: mx.array) -> tuple[mx.array, list[mx.array]]:
    """The gradients for a layer's input and for its adapter, the layer computed again.

    As in `mx.checkpoint` all that goes in waits for the result of the first time.
    """
    parameters = _named(call.layer.trainable_parameters())
    names, own = [name for name, _ in parameters], [array for _, array in parameters]

    def again(hidden: mx.array, *arrays: mx.array) -> mx.array:
        call.layer.update(tree_unflatten(list(zip(names, arrays, strict=True))))
        return cast("mx.array", call.layer(hidden, *call.args, **call.kwargs))

    held = mx.depends([call.hidden, *own], [call.result])
    _, parts = mx.vjp(again, held, [cotangent.astype(call.hidden.dtype)])
    call.layer.update(tree_unflatten(list(zip(names, own, strict=True))))
    return parts[0], parts[1:]


def _named(tree: Any) -> list[tuple[str, mx.array]]:
    """The arrays of a tree with their names, in order."""
    return cast("list[tuple[str, mx.array]]", tree_flatten(tree))


def will_compile() -> bool:
    """Whether `mx.compile` does anything here: on the CPU it needs a compiler."""
    if os.environ.get("MLX_DISABLE_COMPILE"):
        return False
    return kind() != "cpu" or shutil.which("g++") is not None


class _Recorded:
    """The calls of trained layers on the way there, and the zero that the last one adds."""

    def __init__(self, last: nn.Module) -> None:
        self.last = last
        self.zero: mx.array | None = None
        self.loss = mx.array(0.0)
        self.calls: list[_Call] = []


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
        own = [array for _, array in _named(self.trainable_parameters())]
        result = mx.stop_gradient(original.__call__(self, hidden, *args, **kwargs))
        (result,) = mx.depends([result], [hidden, *own])  # in the place of a custom function
        recorded.calls.append(_Call(self, hidden, args, kwargs, result))
        if self is recorded.last and recorded.zero is not None:
            return result + recorded.zero
        return result

    return type(original.__name__, (original,), {"__call__": call})

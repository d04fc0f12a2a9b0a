"""Plays a graph's memory through: what MLX's evaluation of it would hold at its peak.

Follows mlx 0.32: `eval_impl` in transforms.cpp hands the operations over one by one. Each takes
memory for its results, and for copies that it needs, when it is handed over; its inputs are given
back when the device has done it. How far the handing over may run ahead is bounded, and memory is
counted as if it always did: the device is taken to be as slow as it may be. Where an operation may
write into an input that nobody else needs is told by the backend's rules (binary.h, unary.h,
ternary.h, copy.h, compiled.cpp).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from safetraind.worker.probe.graph import ELEMENTWISE, FUSED, Graph, Operation
from safetraind.worker.probe.layout import Layout, fresh, viewed
from safetraind.worker.probe.order import evaluation_order

# No more tasks than these may wait. On the CPU a task is so many dispatches (encoder.h), on a GPU a
# command buffer of so many operations or numbers read (metal/device.cpp, of the larger chips).
_MOST_TASKS = 10
_DISPATCHES_A_TASK = 10
_OPERATIONS_A_COMMAND_BUFFER = 50
_NUMBERS_A_COMMAND_BUFFER = 50 << 20
# A GPU's allocator rounds up to pages.
_PAGE = 16384
# utils.h: a larger buffer is not given to a smaller result.
_DONATION_EXTRA = 16384

_VIEWS = frozenset(
    """
    AsStrided Broadcast BroadcastAxes Copy CustomTransforms Depends ExpandDims Flatten Reshape
    Slice Split Squeeze StopGradient Transpose Unflatten
    """.split()  # noqa: SIM905 (a list would take a screen)
)
_INTO_A_COPY = frozenset({"AddMM", "Scatter", "ScatterAxis", "SliceUpdate"})
_BY_ROWS_ONLY = frozenset({"QuantizedMatmul", "GatherQMM"})


def peak(graph: Graph, *, gpu: bool = False) -> int:
    """Bytes at most held beyond what was there before, `graph.passing` counted as there."""
    return _Playback(graph, gpu).play()


@dataclass(slots=True)
class _Buffer:
    """`references`: arrays that lie in it, and operations under way that use it."""

    size: int
    references: int = 1


@dataclass(slots=True)
class _Placed:
    """An array: its buffer, None for one that stays in memory whatever happens, and its layout."""

    buffer: _Buffer | None
    layout: Layout


class _Playback:
    """The state of one playing."""

    def __init__(self, graph: Graph, gpu: bool) -> None:
        self._graph = graph
        self._gpu = gpu
        self._order = evaluation_order(graph)
        self._uses = Counter(array for o in self._order for array in o.inputs)
        self._kept = set(graph.results)
        self._active = self._peak = 0
        self._placed: dict[int, _Placed] = {}
        for array in graph.given:
            passing = array in graph.passing
            buffer = _Buffer(graph.sizes[array]) if passing else None
            self._placed[array] = _Placed(buffer, fresh(graph.shapes[array]))
        # Of each task that waits: the buffers that it gives back when it is done. The last one is
        # still being filled.
        self._tasks: deque[list[_Buffer]] = deque([[]])
        self._dispatches = self._numbers = 0

    def play(self) -> int:
        """Runs through all operations; returns the peak."""
        for operation in self._order:
            temporaries = self._evaluate(operation)
            self._release(operation, temporaries)
            if len(self._tasks) - 1 > _MOST_TASKS:
                for buffer in self._tasks.popleft():
                    self._drop(buffer)
        return self._peak

    def _dispatch(self) -> None:
        self._dispatches += 1
        if not self._gpu and self._dispatches >= _DISPATCHES_A_TASK:
            self._begin_task()

    def _hold(self, operation: Operation, buffers: Sequence[_Buffer]) -> None:
        """Until the operation is done. On the CPU letting them go is a dispatch of its own."""
        self._tasks[-1].extend(buffers)
        if not self._gpu:
            return self._dispatch()
        self._numbers += sum(self._placed[array].layout.data_size for array in operation.inputs)
        full = self._dispatches > _OPERATIONS_A_COMMAND_BUFFER
        if full or self._numbers > _NUMBERS_A_COMMAND_BUFFER:
            self._begin_task()
        return None

    def _begin_task(self) -> None:
        self._tasks.append([])
        self._dispatches = self._numbers = 0

    def _evaluate(self, operation: Operation) -> list[_Buffer]:
        """Gives each result its place; returns buffers that only the operation itself needs."""
        if operation.name in _VIEWS:
            self._view(operation)
            return []
        if operation.name == FUSED:
            self._fused(operation)
        elif operation.name in _INTO_A_COPY:
            self._copied(operation)
        elif operation.name in ELEMENTWISE or operation.name in ("Softmax", "Full"):
            self._elementwise(operation)
        else:
            for array in operation.outputs:
                self._take(array)
        for _ in operation.inputs if operation.name == "Concatenate" else range(1):
            self._dispatch()
        return [self._copy(array) for array in self._to_copy(operation)]

    def _view(self, operation: Operation) -> None:
        sources = operation.inputs
        if operation.name == "Split":
            sources = operation.inputs * len(operation.outputs)
        elif operation.name == "CustomTransforms":
            sources = operation.inputs[-len(operation.outputs) :]
        for source, array in zip(sources, operation.outputs, strict=False):
            placed, shape = self._placed[source], self._graph.shapes[array]
            layout = viewed(operation.name, operation.arguments or (), placed.layout, shape)
            if layout is None:
                self._take(array)
                self._dispatch()
            else:
                self._share(array, source, layout)

    def _elementwise(self, operation: Operation) -> None:
        """One, two or three inputs, as unary.h, binary.h and ternary.h place the result."""
        (array,) = operation.outputs
        layouts = [self._placed[source].layout for source in operation.inputs]
        first, shape = layouts[0], self._graph.shapes[array]
        if operation.name == "Full" and first.is_scalar:
            return self._take(array)
        if len(layouts) == 1:
            alike = first.dense and (operation.name != "Softmax" or first.strides[-1:] == (1,))
            return self._place(array, operation.inputs if alike else (), first if alike else None)
        if all(layout.is_scalar for layout in layouts):
            return self._take(array, Layout(shape, first.strides, 1))
        alone = [(s, x) for s, x in zip(operation.inputs, layouts, strict=True) if not x.is_scalar]
        by_rows = all(layout.by_rows for layout in layouts)
        by_columns = all(layout.by_columns for layout in layouts)
        if len(layouts) == 2 and len(alone) == 1 and alone[0][1].dense:
            return self._place(array, [alone[0][0]], alone[0][1])
        if by_rows or by_columns:
            return self._place(array, operation.inputs, first)
        whole = [s for s, x in alone if x.by_rows and x.size == math.prod(shape)]
        return self._place(array, whole, None)

    def _fused(self, operation: Operation) -> None:
        """A compiled chain, as compiled.cpp places its results."""
        shape = self._graph.shapes[operation.outputs[0]]
        layouts = {a: self._placed[a].layout for a in operation.inputs if self._graph.shapes[a]}
        found = list(layouts.values())
        same = all(layout.shape == shape for layout in found)
        several = len(found) > 1
        dense = bool(found) and same
        dense &= not several or all(x.by_rows for x in found) or all(x.by_columns for x in found)
        dense &= several or all(x.dense for x in found)
        free = [a for a, x in layouts.items() if dense or (x.by_rows and x.shape == shape)]
        for array in operation.outputs:
            donor = next((a for a in free if self._is_donatable(a, array, roomy=True)), None)
            if donor is not None:
                free.remove(donor)
                self._share(array, donor, layouts[donor])
            else:
                self._take(array, found[0] if dense else None)

    def _copied(self, operation: Operation) -> None:
        """An operation that writes into a copy of one input, or into that input itself."""
        (array,) = operation.outputs
        source = operation.inputs[2 if operation.name == "AddMM" else 0]
        layout = self._placed[source].layout
        alike = layout.by_rows
        if operation.name == "SliceUpdate":
            alike = layout.dense and layout.size == layout.data_size
        alike &= not layout.is_scalar
        self._place(array, [source] if alike else (), layout if alike else None)
        if self._placed[array].buffer is not self._placed[source].buffer:
            self._dispatch()

    def _to_copy(self, operation: Operation) -> list[int]:
        """Inputs that lie so that the operation makes a copy for itself."""
        if operation.name in ("Matmul", "AddMM"):
            return [a for a in operation.inputs[:2] if not self._is_matrix(self._placed[a].layout)]
        if operation.name in _BY_ROWS_ONLY:
            return [a for a in operation.inputs if not self._placed[a].layout.by_rows]
        if operation.name == "LogSumExp":
            layout = self._placed[operation.inputs[0]].layout
            return [] if layout.dense and layout.strides[-1:] == (1,) else [operation.inputs[0]]
        return []

    @staticmethod
    def _is_matrix(layout: Layout) -> bool:
        """BLAS takes it as it lies, straight or transposed."""
        (rows, columns), strides = layout.shape[-2:], layout.strides[-2:]
        return strides in ((columns, 1), (1, rows))

    def _copy(self, array: int) -> _Buffer:
        self._dispatch()
        return self._allocate(self._graph.sizes[array])

    def _place(self, array: int, donors: Sequence[int], layout: Layout | None) -> None:
        """Into the first of `donors` that nobody else needs, else into a new buffer."""
        for donor in donors:
            if self._is_donatable(donor, array):
                return self._share(array, donor, self._placed[donor].layout)
        return self._take(array, layout)

    def _is_donatable(self, array: int, result: int, *, roomy: bool = False) -> bool:
        """Used for the last time, alone in its buffer, and its numbers are as wide."""
        buffer = self._placed[array].buffer
        return (
            buffer is not None
            and array not in self._kept
            and self._uses[array] == 1
            and buffer.references == 1
            and self._item(array) == self._item(result)
            and (roomy or buffer.size <= self._graph.sizes[result] + _DONATION_EXTRA)
        )

    def _item(self, array: int) -> int:
        """Bytes of one of its numbers."""
        return self._graph.sizes[array] // max(1, math.prod(self._graph.shapes[array]))

    def _share(self, array: int, source: int, layout: Layout) -> None:
        buffer = self._placed[source].buffer
        if buffer is not None:
            buffer.references += 1
        self._placed[array] = _Placed(buffer, layout)

    def _take(self, array: int, layout: Layout | None = None) -> None:
        """A buffer of its own: of the whole array, or of what `layout` reaches over."""
        shape = self._graph.shapes[array]
        layout = fresh(shape) if layout is None else replace(layout, shape=shape)
        self._placed[array] = _Placed(self._allocate(layout.data_size * self._item(array)), layout)

    def _allocate(self, size: int) -> _Buffer:
        if self._gpu and size > _PAGE:
            size = -(-size // _PAGE) * _PAGE
        self._active += size
        self._peak = max(self._peak, self._active)
        return _Buffer(size)

    def _release(self, operation: Operation, temporaries: Sequence[_Buffer]) -> None:
        """The operation is under way; what it reads is held until the device has done it."""
        own = [self._placed[array].buffer for array in operation.outputs]
        read = {id(b): b for a in operation.inputs if (b := self._placed[a].buffer) is not None}
        held = [buffer for buffer in read.values() if not any(buffer is other for other in own)]
        for buffer in held:
            buffer.references += 1
        self._hold(operation, [*held, *temporaries])
        for array in operation.inputs:
            self._uses[array] -= 1
        for array in {*operation.inputs, *operation.outputs}:
            if not self._uses[array] and array not in self._kept:
                self._drop(self._placed[array].buffer)

    def _drop(self, buffer: _Buffer | None) -> None:
        if buffer is None:
            return
        buffer.references -= 1
        if buffer.references == 0:
            self._active -= buffer.size

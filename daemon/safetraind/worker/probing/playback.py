"""Plays a graph's memory through: what MLX's evaluation of it would hold at its peak.

Follows mlx 0.32: `eval_impl` in transforms.cpp orders the operations (breadth first from the
results, in a window of 20); each takes memory for its results when it is handed to the device, and
its inputs are given back when the device has done it, some operations later. Element-wise
operations write into an input that nobody else needs. Views take nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence

from safetraind.worker.probing.graph import FUSED, Graph, Operation

_WIDTH = 20
# How far the handing over runs ahead of the CPU, in dispatches: ten tasks of ten dispatches each
# (scheduler.h, encoder.h) and those being filled. Fitted on one model, checked on the others.
RUN_AHEAD = 160
_PAGE = 16384

_VIEWS = frozenset(
    """
    AsStrided Broadcast Checkpoint Contiguous Copy CustomTransforms Depends ExpandDims
    Flatten Reshape Slice Split Squeeze StopGradient Transpose Unflatten
    """.split()  # noqa: SIM905 (a list would take a screen)
)
_COPIES_WHEN_STRIDED = frozenset({"Contiguous", "Flatten", "Reshape", "Unflatten"})
_WRITES_IN_PLACE = frozenset(
    """
    Abs Add AsType Cos Divide Exp LogAddExp Maximum Minimum Multiply Negative Power
    Scatter ScatterAxis Select Sigmoid Sin SliceUpdate Softmax Sqrt Square Subtract
    Tanh
    """.split()  # noqa: SIM905 (a list would take a screen)
) | {FUSED}


def peak(graph: Graph, run_ahead: int = RUN_AHEAD) -> int:
    """Bytes at most held beyond `graph.given`, results included."""
    return _Playback(graph, run_ahead).play()


class _Playback:
    """The state of one playing: buffers, who refers to them, and what waits to be given back."""

    def __init__(self, graph: Graph, run_ahead: int) -> None:
        self._graph = graph
        self._run_ahead = run_ahead
        self._order = evaluation_order(graph)
        self._uses = Counter(a for o in self._order for a in o.inputs)
        self._kept = set(graph.results)
        self._strided: set[int] = set()
        self._buffers: dict[int, int] = {}
        self._sizes: list[int] = []
        self._references: list[int] = []
        self._waiting: deque[tuple[int, list[int]]] = deque()
        self._dispatches = 0
        self._active = self._peak = 0

    def play(self) -> int:
        """Runs through all operations; returns the peak."""
        for operation in self._order:
            while self._waiting and self._waiting[0][0] <= self._dispatches - self._run_ahead:
                for buffer in self._waiting.popleft()[1]:
                    self._drop(buffer)
            temporaries = self._evaluate(operation)
            self._release(operation, temporaries)
        return self._peak

    def _evaluate(self, operation: Operation) -> list[int]:
        """Gives each result its buffer; returns buffers that only the operation itself needs."""
        if operation.name in _VIEWS:
            self._view(operation)
            return []
        donor = self._donor(operation)
        for place, array in enumerate(operation.outputs):
            if donor is not None and place == 0:
                self._share(array, donor)
            else:
                self._buffers[array] = self._take(self._graph.sizes[array])
        self._dispatches += 1
        if operation.name != "Matmul":
            return []
        copied = [a for a in operation.inputs if a in self._strided and self._is_batched(a)]
        return [self._take(self._graph.sizes[a]) for a in copied]

    def _view(self, operation: Operation) -> None:
        skipped = len(operation.inputs) - len(operation.outputs)
        several = len(operation.outputs) > 1 or skipped > 0
        sources = operation.inputs[max(0, skipped) :] if several else operation.inputs
        if operation.name == "Split":
            sources = operation.inputs[:1] * len(operation.outputs)
        for source, array in zip(sources, operation.outputs, strict=False):
            if source in self._strided and operation.name in _COPIES_WHEN_STRIDED:
                self._buffers[array] = self._take(self._graph.sizes[array])
                self._dispatches += 1
                continue
            self._share(array, source)
            if source in self._strided or self._makes_strided(operation, source, array):
                self._strided.add(array)

    def _makes_strided(self, operation: Operation, source: int, array: int) -> bool:
        before, after = self._graph.shapes[source], self._graph.shapes[array]
        match operation.name:
            case "Transpose":
                axes = [axis for axis in operation.arguments[0] if before[axis] != 1]
                return axes != sorted(axes)
            case "Slice" | "Split":
                return before[1:] != after[1:]
            case "Broadcast":
                return self._graph.sizes[source] != self._graph.sizes[array]
        return False

    def _donor(self, operation: Operation) -> int | None:
        """An input whose memory the result may take: this is its last use, and it is as large."""
        if operation.name not in _WRITES_IN_PLACE or not operation.outputs:
            return None
        size = self._graph.sizes[operation.outputs[0]]
        for array in operation.inputs:
            buffer = self._buffers.get(array)
            if (
                buffer is not None
                and array not in self._kept
                and self._uses[array] == operation.inputs.count(array) == 1
                and self._references[buffer] == 1
                and self._graph.sizes[array] == size
            ):
                return array
        return None

    def _release(self, operation: Operation, temporaries: Sequence[int]) -> None:
        self._dispatches += 1
        own = {self._buffers.get(array) for array in operation.outputs}
        held = {self._buffers[a] for a in operation.inputs if a in self._buffers} - own
        for buffer in held:
            self._references[buffer] += 1
        for array in operation.inputs:
            self._uses[array] -= 1
            if not self._uses[array] and array in self._buffers and array not in self._kept:
                self._drop(self._buffers[array])
        for array in operation.outputs:
            if not self._uses[array] and array in self._buffers and array not in self._kept:
                self._drop(self._buffers[array])
        self._waiting.append((self._dispatches, [*held, *temporaries]))

    def _is_batched(self, array: int) -> bool:
        return array in self._buffers and len(self._graph.shapes[array]) > 2

    def _share(self, array: int, source: int) -> None:
        buffer = self._buffers.get(source)
        if buffer is not None:
            self._buffers[array] = buffer
            self._references[buffer] += 1

    def _take(self, size: int) -> int:
        pages = -(-size // _PAGE) * _PAGE if size >= _PAGE else size
        self._sizes.append(pages)
        self._references.append(1)
        self._active += pages
        self._peak = max(self._peak, self._active)
        return len(self._sizes) - 1

    def _drop(self, buffer: int) -> None:
        self._references[buffer] -= 1
        if self._references[buffer] == 0:
            self._active -= self._sizes[buffer]


def evaluation_order(graph: Graph) -> list[Operation]:
    """The operations in the order in which MLX hands them to the device."""
    makers = {a: o for o in graph.operations for a in o.outputs}
    root = Operation("Synchronizer", tuple(a for a in graph.results if a in makers), (-1,))
    makers[-1] = root
    open_uses = _uses_by_array(makers)
    tape, deeper, place = [-1], list[tuple[int, int]](), 0
    while open_uses and (place < len(tape) or deeper):
        if place < len(tape):
            array, start = tape[place], 0
            place += 1
        else:
            array, start = deeper.pop()
        inputs = makers[array].inputs
        for number in range(start, len(inputs)):
            if inputs[number] not in makers:
                continue
            if len(tape) - place >= _WIDTH:
                deeper.append((array, number))
                break
            if _is_last_use(open_uses, makers[inputs[number]], inputs[number]):
                tape.append(inputs[number])
    return [makers[array] for array in reversed(tape) if array != -1]


def _uses_by_array(makers: Mapping[int, Operation]) -> dict[int, int]:
    """For each array that the root depends on: how many operations below the root read it.

    Results of one operation count together, as siblings do in MLX.
    """
    uses: dict[int, int] = {}
    waiting = [-1]
    while waiting:
        for array in makers[waiting.pop()].inputs:
            if array not in makers:
                continue
            if array not in uses:
                waiting.append(array)
            for sibling in makers[array].outputs:
                uses[sibling] = uses.get(sibling, 0) + 1
    return uses


def _is_last_use(open_uses: dict[int, int], maker: Operation, array: int) -> bool:
    for sibling in maker.outputs:
        open_uses[sibling] -= 1
    if open_uses[array]:
        return False
    for sibling in maker.outputs:
        del open_uses[sibling]
    return True

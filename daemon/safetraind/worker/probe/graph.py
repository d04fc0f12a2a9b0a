"""A step's graph as data: which operation reads and writes which arrays, traced and fused.

Nothing is computed: MLX's exporter calls the function with placeholders and tells its primitives.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

# mlx/compile.cpp: how deep a chain of element-wise operations is fused into one, and of how many
# arrays at most.
_MAX_FUSED_DEPTH = 11
_MAX_FUSED_INPUTS = 24
ELEMENTWISE = frozenset(
    """
    Abs Add ArcCos ArcCosh ArcSin ArcSinh ArcTan ArcTan2 ArcTanh AsType BitwiseAnd
    BitwiseInvert BitwiseOr BitwiseXor Broadcast Ceil Conjugate Cos Cosh Divide Equal Erf
    ErfInv Exp Expm1 Floor Greater GreaterEqual Imag LeftShift Less LessEqual Log Log10 Log1p
    Log2 LogAddExp LogicalAnd LogicalNot LogicalOr Maximum Minimum Multiply Negative NotEqual
    Power Real Remainder RightShift Round Rsqrt Select Sigmoid Sign Sin Sinh Sqrt Square
    Subtract Tan Tanh
    """.split()  # noqa: SIM905 (a list would take a screen)
)
FUSED = "Compiled"


@dataclass(frozen=True, slots=True)
class Operation:
    """One primitive: its name, the arrays it reads and writes, by number, and its arguments."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arguments: Any = None


@dataclass(frozen=True, slots=True)
class Graph:
    """A traced function. `shapes` and `sizes` (bytes) by array.

    `given` are there before it begins and stay, but for `passing`, which nobody else holds and
    which go when they were read; `results` stay when it ends.
    """

    operations: tuple[Operation, ...]
    shapes: Mapping[int, tuple[int, ...]]
    sizes: Mapping[int, int]
    given: frozenset[int]
    results: tuple[int, ...]
    passing: frozenset[int] = frozenset()


def trace(
    function: Callable[..., list[mx.array]], inputs: Sequence[mx.array], passing: int = 0
) -> Graph:
    """The graph of `function` called with arrays like `inputs`, none of which is evaluated. The
    last `passing` of them are held by nobody else.

    Raises ValueError for a primitive that MLX cannot export, such as a custom gradient.
    """
    numbers: dict[str, int] = {}
    shapes: dict[int, tuple[int, ...]] = {}
    sizes: dict[int, int] = {}
    operations: list[Operation] = []
    given: set[int] = set()
    passed: set[int] = set()
    results: list[int] = []

    def number(name: str, shape: tuple[int, ...], dtype: mx.Dtype) -> int:
        place = numbers.setdefault(name, len(numbers))
        shapes[place] = tuple(shape)
        sizes[place] = math.prod(shape) * dtype.size
        return place

    def note(event: dict[str, Any]) -> None:
        match event["type"]:
            case "inputs":
                places = [number(*array) for array in event["inputs"]]
                given.update(places)
                passed.update(places[len(places) - passing :])
            case "constants":
                given.update(number(name, a.shape, a.dtype) for name, a in event["constants"])
            case "outputs":
                results.extend(number(*array) for array in event["outputs"])
            case "primitive":
                read = tuple(number(*array) for array in event["inputs"])
                written = tuple(number(*array) for array in event["outputs"])
                arguments = event.get("arguments")
                operations.append(Operation(event["name"], read, written, arguments))

    mx.export_function(note, function, *inputs)
    graph = Graph(tuple(operations), shapes, sizes, frozenset(given), tuple(results))
    return dataclasses.replace(graph, passing=frozenset(passed))


def fused(graph: Graph) -> Graph:
    """The graph as `mx.compile` runs it: chains of element-wise operations become one, and what
    lies between them is never in memory. Follows mlx/compile.cpp, `compile_fuse`.
    """
    return _Fusing(graph).run()


class _Fusing:
    """The state of one fusing. Arrays stand for the operations that make them."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._makers = {a: o for o in graph.operations for a in o.outputs}
        self._shapes, self._sizes = dict(graph.shapes), dict(graph.sizes)
        self._results = set(graph.results)
        self._readers: dict[int, list[int]] = defaultdict(list)
        for operation in graph.operations:
            for array in operation.inputs:
                self._readers[array].append(operation.outputs[-1])
        self._joined: set[int] = set()
        self._inputs: set[int] = set()

    def run(self) -> Graph:
        """From the results backwards."""
        tape: list[Operation] = []
        taken: set[int] = set()
        for array in reversed([o.outputs[-1] for o in self._graph.operations]):
            if array in taken:
                continue
            operation = self._makers[array]
            self._joined, self._inputs = set(), set()
            if operation.name != "Broadcast":
                self._join(array, 0, self._shapes[array])
            if len(self._joined) > 1:
                operation, inner = self._one(array)
                taken |= inner
            tape.append(operation)
        return dataclasses.replace(
            self._graph, operations=tuple(reversed(tape)), shapes=self._shapes, sizes=self._sizes
        )

    def _join(self, array: int, depth: int, shape: tuple[int, ...]) -> None:
        """Joins the operation that makes `array`, if all that reads it is joined, and what it
        reads in turn. Of a broadcast that others read too, a copy is joined.
        """
        if array in self._joined:
            return
        maker, is_result = self._makers.get(array), array in self._results
        if (
            depth >= _MAX_FUSED_DEPTH
            or maker is None
            or maker.name not in ELEMENTWISE
            or (is_result and self._shapes[array] != shape)
        ):
            self._inputs.add(array)
            return
        if depth and not all(reader in self._joined for reader in self._readers[array]):
            if maker.name == "Broadcast" and len(self._inputs) < _MAX_FUSED_INPUTS:
                self._join(self._parted(array), depth, shape)
            else:
                self._inputs.add(array)
            return
        if is_result:
            self._inputs.add(array)
        else:
            self._inputs.discard(array)
        if len(self._inputs) >= _MAX_FUSED_INPUTS:
            return
        self._joined.add(array)
        for source in maker.inputs:
            self._join(source, depth + 1, shape)

    def _parted(self, array: int) -> int:
        """A copy of a broadcast for the readers that are joined; the others keep `array`."""
        copy = max(self._shapes) + 1
        self._shapes[copy], self._sizes[copy] = self._shapes[array], self._sizes[array]
        self._makers[copy] = dataclasses.replace(self._makers[array], outputs=(copy,))
        readers = self._readers[array]
        for reader in dict.fromkeys(r for r in readers if r in self._joined):
            maker = self._makers[reader]
            inputs = tuple(copy if source == array else source for source in maker.inputs)
            changed = dataclasses.replace(maker, inputs=inputs)
            self._makers.update(dict.fromkeys(maker.outputs, changed))
        self._readers[copy] = [r for r in readers if r in self._joined]
        self._readers[array] = [r for r in readers if r not in self._joined]
        return copy

    def _one(self, root: int) -> tuple[Operation, set[int]]:
        """The joined operations as one, and the arrays that are no longer made outside it."""
        inputs: dict[int, None] = {}
        inner: dict[int, None] = {}

        def visit(array: int) -> None:
            if array not in self._joined:
                inputs.setdefault(array)
            elif array not in inner:
                for source in self._makers[array].inputs:
                    visit(source)
                inner.setdefault(array)

        visit(root)
        outputs = (*(a for a in inner if a in self._results and a != root), root)
        operation = Operation(FUSED, tuple(inputs), outputs)
        self._makers.update(dict.fromkeys(outputs, operation))
        for source in inputs:
            outside = [r for r in self._readers[source] if r not in self._joined]
            self._readers[source] = [*outside, *outputs]
        for array in inner:
            kept = [r for r in self._readers[array] if r not in self._joined]
            self._readers[array] = kept if array in outputs else []
        return operation, set(inner) - {root}

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

# mlx/compile.cpp: how deep a chain of element-wise operations is fused into one.
_MAX_FUSED_DEPTH = 11
_ELEMENTWISE = frozenset(
    """
    Abs Add ArcTan2 AsType Broadcast Ceil Copy Cos Divide Equal Erf Exp Expm1 Floor
    Greater GreaterEqual Less LessEqual Log Log1p LogAddExp LogicalAnd LogicalNot
    LogicalOr Maximum Minimum Multiply Negative NotEqual Power Remainder Round Select
    Sigmoid Sign Sin Sqrt Square StopGradient Subtract Tan Tanh
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

    `given` are there before it begins and stay; `results` stay when it ends.
    """

    operations: tuple[Operation, ...]
    shapes: Mapping[int, tuple[int, ...]]
    sizes: Mapping[int, int]
    given: frozenset[int]
    results: tuple[int, ...]


def trace(function: Callable[..., list[mx.array]], inputs: Sequence[mx.array]) -> Graph:
    """The graph of `function` called with arrays like `inputs`, none of which is evaluated.

    Raises ValueError for a primitive that MLX cannot export, such as a custom gradient.
    """
    numbers: dict[str, int] = {}
    shapes: dict[int, tuple[int, ...]] = {}
    sizes: dict[int, int] = {}
    operations: list[Operation] = []
    given: set[int] = set()
    results: list[int] = []

    def number(name: str, shape: tuple[int, ...], dtype: mx.Dtype) -> int:
        place = numbers.setdefault(name, len(numbers))
        shapes[place] = tuple(shape)
        sizes[place] = math.prod(shape) * dtype.size
        return place

    def note(event: dict[str, Any]) -> None:
        match event["type"]:
            case "inputs":
                given.update(number(*array) for array in event["inputs"])
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
    return Graph(tuple(operations), shapes, sizes, frozenset(given), tuple(results))


def fused(graph: Graph) -> Graph:
    """The graph as `mx.compile` runs it: chains of element-wise operations become one, and what
    lies between them is never in memory.

    An operation joins those that read its result when all of them are joined already, as in
    mlx/compile.cpp, `compile_fuse`.
    """
    makers = {a: i for i, o in enumerate(graph.operations) for a in o.outputs}
    readers: dict[int, set[int]] = defaultdict(set)
    for place, operation in enumerate(graph.operations):
        for array in operation.inputs:
            readers[array].add(place)
    results, taken = set(graph.results), set[int]()
    replaced: dict[int, Operation] = {}
    for place in reversed(range(len(graph.operations))):
        if place in taken or graph.operations[place].name not in _ELEMENTWISE:
            continue
        joined = _joined(graph, place, makers, readers, results, taken)
        if len(joined) > 1:
            taken |= joined
            replaced[place] = _one(graph, place, joined)
    kept = [
        replaced.get(place, operation)
        for place, operation in enumerate(graph.operations)
        if place in replaced or place not in taken
    ]
    return dataclasses.replace(graph, operations=tuple(kept))


def _joined(
    graph: Graph,
    root: int,
    makers: Mapping[int, int],
    readers: Mapping[int, set[int]],
    results: set[int],
    taken: set[int],
) -> set[int]:
    joined = {root}
    waiting = [(root, 0)]
    while waiting:
        place, depth = waiting.pop()
        for array in graph.operations[place].inputs:
            maker = makers.get(array)
            if maker is None or maker in joined or maker in taken or array in results:
                continue
            elementwise = graph.operations[maker].name in _ELEMENTWISE
            if elementwise and depth + 1 < _MAX_FUSED_DEPTH and readers[array] <= joined:
                joined.add(maker)
                waiting.append((maker, depth + 1))
    return joined


def _one(graph: Graph, root: int, joined: set[int]) -> Operation:
    inside = {a for place in joined for a in graph.operations[place].outputs}
    read = [a for place in sorted(joined) for a in graph.operations[place].inputs]
    outside = tuple(dict.fromkeys(a for a in read if a not in inside))
    return Operation(FUSED, outside, graph.operations[root].outputs)

"""The order in which MLX evaluates a graph: breadth first from the results, in a window of 20.

Follows mlx 0.32, `eval_impl` in transforms.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping

from safetraind.worker.probe.graph import Graph, Operation

_WIDTH = 20


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

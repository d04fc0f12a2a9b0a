"""How an array lies in its buffer: strides and contiguity, as MLX keeps them.

They decide whether an operation may write into its input's buffer, and whether it needs a copy
first. Follows mlx 0.32: backend/common, common.cpp, slicing.cpp and utils.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Strides in elements. `data_size`: elements of the buffer that the array reaches over.
    `dense`: without holes; `by_rows`, `by_columns`: contiguous in that order.
    """

    shape: Shape
    strides: Shape
    data_size: int
    dense: bool = True
    by_rows: bool = True
    by_columns: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_scalar(self) -> bool:
        """One value, however often it is repeated."""
        return self.data_size == 1


def fresh(shape: Shape) -> Layout:
    """An array in a buffer of its own."""
    size = math.prod(shape)
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return Layout(shape, strides, size, by_columns=size <= 1 or size == max(shape, default=1))


def viewed(name: str, arguments: Sequence[object], source: Layout, shape: Shape) -> Layout | None:
    """The layout of a view's result; None where MLX would make a copy."""
    match name:
        case "Broadcast" | "BroadcastAxes":
            return _broadcast(source, shape)
        case "Transpose":
            return _transposed(source, _numbers(arguments[0]), shape)
        case "ExpandDims":
            return _expanded(source, _numbers(arguments[0]), shape)
        case "Squeeze":
            return _squeezed(source, _numbers(arguments[0]), shape)
        case "Slice":
            return _sliced(source, _numbers(arguments[2]), shape)
        case "Split":
            return _split(source, shape)
        case "AsStrided":
            return _strided(shape, _numbers(arguments[1]))
        case "Flatten" | "Reshape" | "Unflatten":
            return _reshaped(source, shape)
    return source


def _numbers(value: object) -> Shape:
    assert isinstance(value, list | tuple)
    return tuple(value)


def _broadcast(source: Layout, shape: Shape) -> Layout:
    new = len(shape) - len(source.shape)
    own = zip(source.shape, source.strides, strict=True)
    strides = (0,) * new + tuple(0 if side == 1 else stride for side, stride in own)
    same = math.prod(shape) <= source.size
    return replace(
        source,
        shape=shape,
        strides=strides,
        by_rows=source.by_rows and same,
        by_columns=source.by_columns and same,
    )


def _transposed(source: Layout, axes: Shape, shape: Shape) -> Layout:
    strides = tuple(source.strides[axis] for axis in axes)
    by_rows, by_columns = source.by_rows, source.by_columns
    if source.dense and source.data_size == source.size:
        by_rows, by_columns = _orders(shape, strides)
    return replace(source, shape=shape, strides=strides, by_rows=by_rows, by_columns=by_columns)


def _expanded(source: Layout, axes: Shape, shape: Shape) -> Layout:
    strides = list(source.strides)
    for axis in axes:
        strides.insert(axis, 1)
    return replace(source, shape=shape, strides=tuple(strides))


def _squeezed(source: Layout, axes: Shape, shape: Shape) -> Layout:
    gone = {axis % len(source.shape) for axis in axes}
    strides = tuple(stride for axis, stride in enumerate(source.strides) if axis not in gone)
    return replace(source, shape=shape, strides=strides)


def _sliced(source: Layout, steps: Shape, shape: Shape) -> Layout:
    strides = tuple(stride * step for stride, step in zip(source.strides, steps, strict=True))
    return _strided(shape, strides)


def _split(source: Layout, shape: Shape) -> Layout:
    sides = [n for n, stride in zip(shape, source.strides, strict=True) if stride > 0]
    data_size = math.prod(sides)
    by_rows, by_columns = _orders(shape, source.strides)
    dense = source.dense
    if data_size == 1:
        dense = True
    elif data_size != source.data_size:
        dense = dense and (by_rows or by_columns)
    return Layout(shape, source.strides, data_size, dense, by_rows, by_columns)


def _strided(shape: Shape, strides: Shape) -> Layout:
    pairs = list(zip(shape, strides, strict=True))
    reach = 1 + sum(abs(stride) * (side - 1) for side, stride in pairs)
    repeated = math.prod(side for side, stride in pairs if stride > 0)
    by_rows, by_columns = _orders(shape, strides)
    return Layout(shape, strides, reach, repeated == reach, by_rows, by_columns)


def _orders(shape: Shape, strides: Shape) -> tuple[bool, bool]:
    """Whether the strides are those of an array by rows, and of one by columns."""
    pairs = list(zip(shape, strides, strict=True))
    return _in_order(pairs[::-1]), _in_order(pairs)


def _in_order(pairs: Sequence[tuple[int, int]]) -> bool:
    expected = 1
    for side, stride in pairs:
        if stride != expected and side != 1:
            return False
        expected *= side
    return True


def _reshaped(source: Layout, shape: Shape) -> Layout | None:
    if source.size == 0 or source.by_rows:
        by_columns = source.size <= 1 or source.size == max(shape, default=1)
        return replace(fresh(shape), data_size=source.data_size, by_columns=by_columns)
    sides, strides = _collapsed(source)
    found: list[int] = []
    place = 0
    for side in shape:
        if place < len(sides) and sides[place] % side == 0:
            sides[place] //= side
            found.append(sides[place] * strides[place])
            place += sides[place] == 1
        elif side == 1 and found:
            found.append(found[-1])
        else:
            return None
    return replace(source, shape=shape, strides=tuple(found))


def _collapsed(source: Layout) -> tuple[list[int], list[int]]:
    """Sides and strides, with axes that follow each other without a gap made one."""
    sides, strides = [source.shape[0]], [source.strides[0]]
    for side, stride in zip(source.shape[1:], source.strides[1:], strict=True):
        if side == 1:
            continue
        if stride * side == strides[-1]:
            sides[-1] *= side
            strides[-1] = stride
        else:
            sides.append(side)
            strides.append(stride)
    return sides, strides

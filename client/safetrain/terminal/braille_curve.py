"""A line chart of text: Braille characters of two by four dots, with marks on top."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from safetrain_shared.i18n import decimal

Points = Sequence[tuple[float, float]]  # x, y
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # column, row → bit; Unicode 2800
MARK = "o"
_MARK_COLUMNS = 4  # least distance between marks, so that the line stays visible
_LABEL = 7  # characters before the axis


def curve(line: Points, marks: Points, width: int, height: int) -> list[str]:
    """Return `height` rows of at most `width` characters. Values that are not finite are left out.

    `line` is drawn in dots, `marks` as an `o` each, thinned so that the last one stays. The x axis
    goes from 0 to the last point. Fewer than two points give empty rows.
    """
    line, marks = _finite(line), _finite(marks)
    points = [*line, *marks]
    columns = width - _LABEL - 2
    if len(points) < 2 or columns < 4 or height < 2:
        return [""] * height
    right = max(x for x, _ in points) or 1.0
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0
    cells = _line_cells(line, columns, height, right, low, span)
    for x, y in marks[:: -max(1, len(marks) * _MARK_COLUMNS // columns)]:
        column = min(columns - 1, int(x / right * columns))
        cells[min(height - 1, int((low + span - y) / span * height))][column] = MARK
    return [
        f"{_label(row, height, low, high):>{_LABEL}} │{''.join(cells[row]).rstrip()}"
        for row in range(height)
    ]


def _line_cells(
    line: Points, columns: int, height: int, right: float, low: float, span: float
) -> list[list[str]]:
    """Return the characters of the line, joined from point to point."""
    bits = [[0] * columns for _ in range(height)]
    before: int | None = None
    for x, value in _by_column(line, 2 * columns, right):
        y = min(4 * height - 1, int((low + span - value) / span * 4 * height))
        for dot in _between(before, y):
            bits[dot // 4][x // 2] |= _DOTS[x % 2][dot % 4]
        before = y
    return [[chr(_BRAILLE + bit) if bit else " " for bit in row] for row in bits]


def _by_column(line: Points, columns: int, right: float) -> Iterator[tuple[int, float]]:
    """Yield a value for each column: the mean of its points, or linearly interpolated."""
    sums: dict[int, list[float]] = {}
    for x, y in line:
        sums.setdefault(min(columns - 1, int(x / right * columns)), []).append(y)
    means = [(x, sum(ys) / len(ys)) for x, ys in sorted(sums.items())]
    yield from means[:1]
    for (x0, y0), (x1, y1) in pairwise(means):
        for x in range(x0 + 1, x1 + 1):
            yield x, y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _between(before: int | None, now: int) -> range:
    """Return the dots of a column that join it to the column before, at height `before`."""
    if before is None or abs(before - now) <= 1:
        return range(now, now + 1)
    return range(now, before) if now < before else range(before + 1, now + 1)


def _label(row: int, height: int, low: float, high: float) -> str:
    value = {0: high, height - 1: low, height // 2: (low + high) / 2}.get(row)
    if value is None:
        return ""
    return decimal(value, 3 if abs(value) < 100 else 0)


def _finite(points: Points) -> Points:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]

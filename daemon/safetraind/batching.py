"""Padding, packing and rounding of predictions: the rules by which rows become shapes. Pure, on
whole numbers.

The trainer lays its batches out by these rules, and the planner counts by them beforehand.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Mapping

QUARTERS = 4  # the predictions of a micro-batch are filled up to quarters of its tokens
NEARLY_ALL = 0.95  # of the samples: their tokens fill packed rows above 97 %


def padded(length: int, bucket: int) -> int:
    """Return `length` rounded up to one of few lengths, so that every shape can be compiled once.

    Multiples of `bucket`, and at most 8 lengths between a power of two and the next.
    """
    step = max(bucket, 1 << max(0, (max(length, 1) - 1).bit_length() - 4))
    return -(-max(length, 1) // step) * step


def quarters(count: int, whole: int) -> int:
    """Return `count` rounded up to a quarter, half, three quarters or all of `whole`."""
    return in_quarters(max(1, -(-count // -(-whole // QUARTERS))), whole)


def in_quarters(number: int, whole: int) -> int:
    """Return `number` quarters of `whole`, at most all of it."""
    return min(whole, number * -(-whole // QUARTERS))


def packed_width(counts: Mapping[int, int], most: int, bucket: int) -> int:
    """Return the width in tokens of packed rows, padded and `most` at most.

    Nearly all samples fit into it, and so do three ordinary ones. `counts`: samples by their length
    in tokens. The few longer samples have rows of their own. Were all rows as wide, attention would
    cost the square of it.
    """
    if not counts:
        return padded(most, bucket)
    ordered = sorted(counts)
    behind = list(itertools.accumulate(counts[length] for length in ordered))
    places = (int(share * (behind[-1] - 1)) for share in (NEARLY_ALL, 0.5))
    nearly, half = (ordered[bisect_right(behind, place)] for place in places)
    return padded(min(max(nearly, 3 * half), most), bucket)


def packed_rows(counts: Mapping[int, int], width: int) -> Iterator[tuple[int, ...]]:
    """Yield the lengths in each packed row of `width` tokens, the longest first.

    Best fit decreasing: always the longest sample that still fits, which fills above 99 % of the
    tokens on mixed lengths. A sample that is longer than `width` has a row of its own length.
    """
    waiting = dict(counts)
    left = sorted(waiting)
    while left:
        row, room = [], max(width, left[-1])
        while (fitting := bisect_right(left, room)) > 0:
            length = left[fitting - 1]
            row.append(length)
            room -= length
            waiting[length] -= 1
            if not waiting[length]:
                left.remove(length)
        yield tuple(row)

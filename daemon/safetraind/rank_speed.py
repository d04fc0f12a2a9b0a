"""How fast several ranks train, each on a machine of its own; pure arithmetic.

A sum over N ranks in a ring moves 2 (N - 1) / N of the vector through each link, in 2 (N - 1)
messages (Patarasuk and Yuan 2009). Computing and summing do not overlap in this trainer.
"""

from __future__ import annotations

from collections.abc import Sequence


def bytes_sent(vector_bytes: float, ranks: int) -> float:
    """Return the bytes that each rank sends to its neighbour in one sum."""
    return 2 * (ranks - 1) / ranks * vector_bytes


def ring_seconds(
    vector_bytes: float, ranks: int, *, bits_per_second: float, latency: float
) -> float:
    """Return the seconds of one sum over links of equal speed. `latency`: seconds a message."""
    moving = 8 * bytes_sent(vector_bytes, ranks) / bits_per_second
    return moving + 2 * (ranks - 1) * latency


def speedup(alone: float, ranks: int, sum_seconds: float) -> float:
    """Return how many times as fast `ranks` ranks are as one.

    `alone`: seconds of an optimizer step of one process; `sum_seconds`: of one sum over the ranks.
    """
    return alone / (alone / ranks + sum_seconds)


def speedup_of_machines(
    shares: Sequence[float], alone: Sequence[float], sum_seconds: float
) -> float:
    """Return how many times as fast machines are together as the fastest of them alone.

    Of each machine, seconds: `shares` for its part of a step, `alone` for the whole step. The
    slowest part decides, and then the sum over all.
    """
    return min(alone) / (max(shares) + sum_seconds)

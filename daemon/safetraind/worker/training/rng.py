"""Random numbers that depend on nothing but a seed and a place: no state to save and restore.

The mixing is SplitMix64's finalizer (Steele, Lea and Flood 2014; Vigna's splitmix64.c). It is
written out here, because a library's stream of random numbers may change between versions, and a
training that is resumed after an upgrade must not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def number(seed: int, *place: int) -> int:
    """Return a random 64-bit integer for a place: always the same, unrelated to its neighbours."""
    state = np.array([seed % 2**64], np.uint64)
    for word in place:
        state = _mixed(state ^ np.uint64(word % 2**64))
    return int(_mixed(state)[0])


def order(count: int, seed: int, *place: int) -> NDArray[np.int64]:
    """Return a random permutation of `range(count)`, int64, shape (count,), that depends on seed
    and place alone.
    """
    keys = np.uint64(number(seed, *place)) + np.arange(count, dtype=np.uint64) * _GAMMA
    return np.argsort(_mixed(keys), kind="stable")


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = words + _GAMMA  # arrays wrap around silently, as the algorithm wants it
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))

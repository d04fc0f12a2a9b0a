"""The side of each sample: training, validation or questions. Near-equal samples stay together.

The side follows from a hash of the seed and of the sample's text, so that it depends on nothing
else. Then every training sample that says nearly the same as one that is held out follows it, until
none is left: a whole group of near-equal samples is then on one side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from safetraind.worker.data.duplicate_index import MOST_SAMPLES, Leakage
from safetraind.worker.data.near_duplicates import MOST_RUNS, MOST_UNITS
from safetraind.worker.prepare.sample_store import SampleStore

TRAIN, VALID, QUESTIONS = range(3)
REPEATED = 255  # on no side: it repeats an earlier one

Said = tuple[int, int, list[bytes]]


def place_of(words: Sequence[bytes], seed: int) -> float:
    """Return a sample's place between 0 and 1, by a hash of its words and of the seed."""
    digest = hashlib.blake2b(b" ".join(words), digest_size=8, key=seed.to_bytes(8, "big")).digest()
    return int.from_bytes(digest, "big") / 2**64


def side_at(place: float, shares: tuple[float, float]) -> int:
    """Return the side of a sample at `place`; `shares`: of validation and of questions, 0 to 1."""
    valid, questions = shares
    return VALID if place < valid else QUESTIONS if place < valid + questions else TRAIN


def keep_groups_together(sides: bytearray, store: SampleStore) -> int:
    """Move the samples of a group that spans two sides to one of them. Return their number.

    `sides[n]` is the side of sample n. Questions win over validation, validation over training.
    Flat memory: samples that are held out are indexed as many at a time as `Leakage` holds, and the
    others are looked up once for each such part.
    """
    moved = 0
    for side in (QUESTIONS, VALID):
        fresh = bytearray(given == side for given in sides)
        while any(fresh):
            followers = _follow(fresh, side, sides, store)
            moved += sum(followers)
            fresh = followers
    return moved


def _follow(fresh: bytearray, side: int, sides: bytearray, store: SampleStore) -> bytearray:
    """Move samples that are nearly equal to one of `fresh` to `side`. Return 1 for each that
    moved.
    """
    followers = bytearray(len(sides))
    for index in _indexes(store.said(lambda number: bool(fresh[number]))):
        for number, key, units in store.said(lambda number: sides[number] < side):
            if index.find(key, units) is not None:
                sides[number], followers[number] = side, 1
    return followers


def _indexes(said: Iterator[Said]) -> Iterator[Leakage]:
    """Yield indexes of the given samples, each as large as one may be."""
    index, held, runs = _empty(), 0, 0
    for number, key, units in said:
        if held and (held >= MOST_SAMPLES or runs + len(units) > MOST_RUNS - MOST_UNITS):
            index.freeze()
            yield index
            index, held, runs = _empty(), 0, 0
        index.add(key, number, units)
        held, runs = held + 1, runs + len(units)
    if held:
        index.freeze()
        yield index


def _empty() -> Leakage:
    index = Leakage()
    index.begin("")
    return index

"""Nearly equal samples: an index of samples by their words, in flat memory, and the comparison.

Of each indexed sample every run of four words is kept, as a hash. A sample that is looked up is cut
into runs of four, one behind the other: where nine tenths of the words are the same, in order, most
of its runs stand in the other sample too, wherever there. Samples that share enough are compared
word by word.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import numpy.typing as npt

# Nearly equal: at least this share of the words, in order, is the same.
NEAR = 0.9
MIN_UNITS = 8
# Of a longer sample only the beginning is compared.
MOST_UNITS = 2048
# Words that are looked at together.
_RUN = 4
# 8 bytes a run: as many as 18 MB of text have.
MOST_RUNS = 3 << 20
# This share of a sample's runs must stand in others before it is compared with any.
_SHARED = 0.4
# A run in more samples than these says little about each of them.
_COMMON = 64
_TRIED = 3
# A posting is 40 bits of a run's hash, then the number of the sample that it stands in.
_NUMBER_BITS = 24
_NUMBER = (1 << _NUMBER_BITS) - 1
_HASH = (1 << (64 - _NUMBER_BITS)) - 1
_LARGEST_FILTER = 1 << 23

_Postings = npt.NDArray[np.uint64]
_Places = npt.NDArray[np.intp]


class NearIndex:
    """Samples by their words, numbered from 0 as they are added, at most 2**24 of them.

    Holds 8 bytes for each run and each sample, and lets the words lie on the disk.
    """

    def __init__(self) -> None:
        self._new = array("Q")
        self._postings: _Postings = np.zeros(0, np.uint64)
        self._known, self._slot = b"\0".__getitem__, (0).__and__
        self._file: IO[bytes] | None = None
        self._ends = array("Q", [0])

    def add(self, units: Sequence[bytes]) -> bool:
        """Add a sample of at most `MOST_UNITS` words. Return False where there is no room for
        it.
        """
        number = len(self._ends) - 1
        shifted = (units[start:] for start in range(_RUN))
        runs = {hash(run) & _HASH for run in zip(*shifted, strict=False)}
        if len(self._postings) + len(self._new) + len(runs) > MOST_RUNS:
            self._ends.append(self._ends[-1])
            return False
        if len(units) >= MIN_UNITS:
            self._new.extend([run << _NUMBER_BITS | number for run in runs])
        self._ends.append(self._ends[-1] + self._write(b" ".join(units)))
        return True

    def _write(self, text: bytes) -> int:
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115 (closed with us)
        return self._file.write(text)

    def freeze(self) -> None:
        """Index the added samples, so that `find` sees them."""
        if self._file is not None:
            self._file.flush()
        new = np.frombuffer(self._new, np.uint64)
        self._postings = np.concatenate((self._postings, new)) if len(self._postings) else new
        self._new = array("Q")
        self._postings.sort()
        known = filter_of(self._postings, _NUMBER_BITS)
        self._known, self._slot = known.__getitem__, (len(known) - 1).__and__

    def find(self, units: Sequence[bytes]) -> int:
        """Return the number of a sample that is equal or nearly equal; -1 where there is none."""
        needed = _SHARED * (len(units) // _RUN)
        if sum(map(self._known, map(self._slot, map(hash, _in_runs(units))))) < needed:
            return -1  # nearly always
        if len(units) < MIN_UNITS:
            return -1
        low, high = self._postings_of(units)
        if len(low) >= needed:
            for number in self._candidates(low, high):
                if is_near(units, self._units(number)):
                    return number
        return -1

    def _postings_of(self, units: Sequence[bytes]) -> tuple[_Places, _Places]:
        """Return the range of postings, from and to, of each run of `units` that occurs in any
        sample.
        """
        hashes = np.fromiter(map(hash, _in_runs(units)), np.int64, len(units) // _RUN)
        first = hashes.view(np.uint64) << np.uint64(_NUMBER_BITS)
        low = np.searchsorted(self._postings, first)
        high = np.searchsorted(self._postings, first | np.uint64(_NUMBER), side="right")
        return low[high > low], high[high > low]

    def _candidates(self, low: _Places, high: _Places) -> list[int]:
        """Return the samples that share most of the rare runs, and some that share a common one."""
        rare = high - low <= _COMMON
        votes: Counter[int] = Counter()
        for start, end in zip(low[rare].tolist(), high[rare].tolist(), strict=True):
            votes.update(self._numbers(start, end))
        tried = [number for number, _ in votes.most_common(_TRIED)]
        if not rare.all():
            place = int(np.argmin(np.where(rare, len(self._postings), high - low)))
            start, end = int(low[place]), int(high[place])
            step = max(1, (end - start) // _TRIED)
            tried += islice(self._numbers(start, end), 0, _TRIED * step, step)
        return tried

    def _numbers(self, start: int, end: int) -> list[int]:
        return (self._postings[start:end] & np.uint64(_NUMBER)).tolist()

    def _units(self, number: int) -> list[bytes]:
        assert self._file is not None  # what is found was written
        start, end = self._ends[number], self._ends[number + 1]
        return os.pread(self._file.fileno(), end - start, start).split(b" ")


def filter_of(values: npt.NDArray[np.uint64], shift: int = 0) -> bytes:
    """Return a filter by the lowest bits of `values` shifted by `shift`: 1 where a value may be
    among them, 0 where not.

    Its length is a power of two, and at most 8 MB.
    """
    known = np.zeros(min(1 << (8 * len(values)).bit_length(), _LARGEST_FILTER), np.bool_)
    for start in range(0, len(values), 1 << 16):
        hashes = values[start : start + (1 << 16)] >> np.uint64(shift)
        known[hashes & np.uint64(len(known) - 1)] = True
    return known.tobytes()


def _in_runs(units: Sequence[bytes]) -> Iterator[tuple[bytes, ...]]:
    """Yield the runs of four words, one after the other. A remainder at the end is dropped."""
    return zip(*[iter(units)] * _RUN)  # noqa: B905 (it is called for every line)


def is_near(units: Sequence[bytes], others: Sequence[bytes]) -> bool:
    """Return whether at least the share `NEAR` of both texts' words are the same, in order."""
    fewer, more = sorted((len(units), len(others)))
    if fewer < NEAR * more:
        return False
    needed = NEAR * (fewer + more) / 2
    known = set(others)
    if sum(map(known.__contains__, units)) < needed:
        return False
    return in_order(units, others) >= needed


def in_order(units: Sequence[bytes], others: Sequence[bytes]) -> int:
    """Return the length of the longest common subsequence of both lists of words.

    Bit-parallel, 64 words at a time (Hyyrö 2004), so that repetitive text cannot make it slow.
    """
    places: dict[bytes, int] = {}
    for place, unit in enumerate(units):
        places[unit] = places.get(unit, 0) | 1 << place
    full = (1 << len(units)) - 1
    row = full
    for other in others:
        if here := places.get(other):
            row = (row + (row & here) | row & ~here) & full
    return len(units) - row.bit_count()

"""Equal and nearly equal samples: within a file, and between files.

Two samples are equal when their words are (`text_normalisation.words_of`). Hashes of a file that
may be larger than memory lie in partitions on the disk; of the smaller one, that others are
compared with, an index is kept, bounded too.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from tempfile import TemporaryFile
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from safetraind.worker.data.near_duplicates import NearIndex, filter_of

# 28 bytes each.
MOST_SAMPLES = 1 << 19
_LINE_BITS = 40
_PARTITION_BITS = 6
_PENDING_HASHES = 1 << 18
_CHUNK = 1 << 16


class Repeats:
    """Lines of one file that repeat the sample of an earlier line.

    16 bytes a sample, beyond a quarter million on the disk; the answers come in flat memory.
    """

    def __init__(self) -> None:
        self._hashes = array("q")
        self._lines = array("q")
        self._partitions: list[IO[bytes]] = []

    def add(self, key: int, line: int) -> None:
        """Note the sample of line `line`, whose words have the 64-bit hash `key`."""
        self._hashes.append(key)
        self._lines.append(line)
        if len(self._hashes) >= _PENDING_HASHES:
            self._spill()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the pairs (line, the first line that holds the same), by partition, then by
        line.
        """
        if not self._partitions:
            pending = self._pending()
            yield from _repeats(pending[n : n + _CHUNK] for n in range(0, len(pending), _CHUNK))
            return
        self._spill()
        for partition in self._partitions:
            yield from _repeats(_chunks(partition))

    def _pending(self) -> npt.NDArray[np.int64]:
        columns = [np.frombuffer(a, np.int64) for a in (self._hashes, self._lines)]
        return np.column_stack(columns)

    def _spill(self) -> None:
        if not self._partitions:
            count = 1 << _PARTITION_BITS
            self._partitions = [TemporaryFile() for _ in range(count)]  # noqa: SIM115 (closed with us)
        pending = self._pending()
        places = pending[:, 0].astype(np.uint64) >> np.uint64(64 - _PARTITION_BITS)
        for place, partition in enumerate(self._partitions):
            partition.write(pending[places == place].tobytes())
        self._hashes, self._lines = array("q"), array("q")


def _chunks(partition: IO[bytes]) -> Iterator[npt.NDArray[np.int64]]:
    partition.seek(0)
    while chunk := partition.read(16 * _CHUNK):
        yield np.frombuffer(chunk, np.int64).reshape(-1, 2)


def _repeats(chunks: Iterable[npt.NDArray[np.int64]]) -> Iterator[tuple[int, int]]:
    """Yield each later line with the first line of its hash.

    `chunks`: rows (hash, line), with lines ascending from chunk to chunk.
    """
    firsts = np.zeros((0, 2), np.int64)
    for chunk in chunks:
        rows = np.concatenate((firsts, chunk))
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        starts = np.concatenate([[True], rows[1:, 0] != rows[:-1, 0]])
        owners = rows[:, 1][np.maximum.accumulate(np.where(starts, np.arange(len(rows)), 0))]
        pairs = zip(rows[~starts, 1].tolist(), owners[~starts].tolist(), strict=True)
        yield from sorted(pairs)
        firsts = rows[starts]


class Leak(NamedTuple):
    """The place of an earlier sample with the same text, and whether it is exactly the same."""

    equal: bool
    file: str
    line: int


class Leakage:
    """Finds the sample of an earlier file that is equal or nearly equal to a sample of this one.

    Holds at most `MOST_SAMPLES` samples and `near_duplicates.MOST_RUNS` runs of words. `indexed`
    and `indexed_near` count the samples of the last file that can be found as equal, and as nearly
    equal.
    """

    def __init__(self) -> None:
        self._near = NearIndex()
        self._files: list[str] = []
        self._places = array("q")
        self._new = array("q")
        self._keys: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._numbers: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._filter = b"\0"
        self.indexed = self.indexed_near = 0

    def begin(self, file: str) -> None:
        """Begin the samples of another file, which findings call `file`."""
        self._files.append(file)
        self.indexed = self.indexed_near = 0

    def add(self, key: int, line: int, units: Sequence[bytes]) -> None:
        """Note a sample by its line, the hash of its words, and at most `MOST_UNITS` of them."""
        if len(self._places) >= MOST_SAMPLES:
            return
        self._new.append(key)
        self._places.append((len(self._files) - 1) << _LINE_BITS | line)
        self.indexed += 1
        self.indexed_near += self._near.add(units)

    def freeze(self) -> None:
        """Index the added samples, so that `find` sees them."""
        keys = np.concatenate((self._keys, np.array(self._new, np.int64)))
        added = np.arange(len(self._keys), len(keys), dtype=np.uint32)
        order = np.argsort(keys, kind="stable")
        self._keys, self._numbers = keys[order], np.concatenate((self._numbers, added))[order]
        self._new = array("q")
        self._filter = filter_of(self._keys.view(np.uint64))
        self._near.freeze()

    def find(self, key: int, units: Sequence[bytes]) -> Leak | None:
        """Return the earlier sample whose words have the hash `key`, else one that is nearly
        equal.
        """
        number, equal = self._equal(key), True
        if number < 0:
            number, equal = self._near.find(units), False
        if number < 0:
            return None
        file, line = divmod(self._places[number], 1 << _LINE_BITS)
        return Leak(equal, self._files[file], line)

    def _equal(self, key: int) -> int:
        if not self._filter[key & (len(self._filter) - 1)]:
            return -1  # nearly always
        place = int(np.searchsorted(self._keys, key))
        found = place < len(self._keys) and self._keys[place] == key
        return int(self._numbers[place]) if found else -1

"""Equal and nearly equal samples: within a file, and between training and validation files.

Two samples are equal when their words are (`words_of`). Hashes of a file that may be larger
than memory lie in partitions on the disk; of the validation file, and of it alone, an index is
kept, bounded too.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import numpy.typing as npt

_PARTITION_BITS = 6
_PENDING_HASHES = 1 << 20

# Nearly equal: at least this share of the words, in order, is the same.
NEAR = 0.9
MIN_NEAR_WORDS = 8
_SIGNATURE_WORDS = 5
_SIGNATURE_SHARED = 0.6
_MAX_POSTINGS = 64
_MAX_INDEXED_BYTES = 24 << 20


def words_of(text: str) -> list[str]:
    """The words of a text as they count for equality: compatibility forms and case apart."""
    if text.isascii():
        return text.lower().split()
    return unicodedata.normalize("NFKC", text).casefold().split()


def key_of(words: list[str]) -> int:
    """A 64-bit hash of words in order, good within this process."""
    return hash(tuple(words))


class Repeats:
    """Which lines of one file hold the same sample as an earlier line.

    16 bytes a sample, on the disk beyond the first million; the answers come in flat memory.
    """

    def __init__(self) -> None:
        self._hashes = array("q")
        self._lines = array("q")
        self._partitions: list[IO[bytes]] = []

    def add(self, key: int, line: int) -> None:
        """Notes the sample of line `line`, whose words have the 64-bit hash `key`."""
        self._hashes.append(key)
        self._lines.append(line)
        if len(self._hashes) >= _PENDING_HASHES:
            self._spill()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Pairs (line, the first line that holds the same), by partition, then by line."""
        if not self._partitions:
            yield from _repeats(self._pending())
            return
        self._spill()
        for partition in self._partitions:
            partition.seek(0)
            yield from _repeats(np.frombuffer(partition.read(), np.int64).reshape(-1, 2))

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


def _repeats(rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Of rows (hash, line), lines ascending: each later line with the first of its hash."""
    if len(rows) < 2:
        return
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    starts = np.concatenate([[True], rows[1:, 0] != rows[:-1, 0]])
    firsts = rows[:, 1][np.maximum.accumulate(np.where(starts, np.arange(len(rows)), 0))]
    pairs = zip(rows[~starts, 1].tolist(), firsts[~starts].tolist(), strict=True)
    yield from sorted(pairs)


class Leakage:
    """Finds, for samples of a training file, the validation sample that says the same.

    Each validation sample is known by its rarest words. A training sample that shares most of
    them is compared word by word. What lies beyond `_MAX_INDEXED_BYTES` of validation text is
    found when equal, but not when only nearly equal; `complete` tells.
    """

    def __init__(self) -> None:
        self._equal: dict[int, int] = {}
        self._texts: list[tuple[int, str]] = []
        self._indexed = 0
        self._postings: dict[str, list[int]] = {}
        self._needed: list[int] = []
        self._anchors: frozenset[str] = frozenset()
        self._least = 1
        self.complete = True

    def add(self, key: int, line: int, words: list[str]) -> None:
        """Notes a validation sample by its line, its words and their hash."""
        self._equal.setdefault(key, line)
        if len(words) < MIN_NEAR_WORDS:
            return
        text = " ".join(words)
        if self._indexed + len(text) > _MAX_INDEXED_BYTES:
            self.complete = False
            return
        self._indexed += len(text)
        self._texts.append((line, text))

    def freeze(self) -> None:
        """Ends the adding; builds the index of rare words."""
        spread: Counter[str] = Counter()
        for _, text in self._texts:
            spread.update(set(text.split()))
        for place, (_, text) in enumerate(self._texts):
            rarest = sorted(set(text.split()), key=lambda word: (spread[word], word))
            signature = rarest[:_SIGNATURE_WORDS]
            self._needed.append(max(1, round(_SIGNATURE_SHARED * len(signature))))
            for word in signature:
                postings = self._postings.setdefault(word, [])
                if len(postings) < _MAX_POSTINGS:
                    postings.append(place)
        self._anchors = frozenset(self._postings)
        self._least = min(self._needed, default=1)

    def equal(self, key: int) -> int:
        """The validation line whose words have the hash `key`; 0 where there is none."""
        return self._equal.get(key, 0)

    def nearly_equal(self, words: list[str]) -> int:
        """The validation line whose words are nearly these; 0 where there is none."""
        common = self._anchors.intersection(words)
        if len(common) < self._least or len(words) < MIN_NEAR_WORDS:
            return 0
        votes: list[int] = []
        for word in common:
            votes += self._postings[word]
        if len(votes) == len(set(votes)) and self._least > 1:
            return 0  # no validation sample shares two words
        for place, count in Counter(votes).items():
            if count >= self._needed[place]:
                line, other = self._texts[place]
                if _similar(words, other.split()):
                    return line
        return 0


def _similar(words: list[str], others: list[str]) -> bool:
    if min(len(words), len(others)) < NEAR * max(len(words), len(others)):
        return False
    matcher = SequenceMatcher(None, words, others, autojunk=False)
    return matcher.quick_ratio() >= NEAR and matcher.ratio() >= NEAR

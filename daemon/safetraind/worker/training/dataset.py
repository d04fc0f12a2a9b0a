"""Tokenized samples in a mapped file: written once, read by page, never loaded into memory at once.

A folder `NAME` holds `tokens.bin`, one uint32 a token (its id shifted left by one; the lowest bit
is 1 where the token is to be learned), `index.npy`, one row a sample, and a manifest with sizes and
SHA-256, which also holds the origin of the files. The manifest is written last.
"""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safetraind.storage.manifest import damaged_files, read_manifest, write_manifest
from safetraind.worker.data.encode_chat import Encoded

FORMAT = 2
_TOKENS, _INDEX = "tokens.bin", "index.npy"
_OFFSET, _LENGTH, _FIRST, _LINE = range(4)  # the index; first: where the first token to learn is


class Samples:
    """The samples of one tokenized file, numbered from 0 in the file's order.

    They may be read shorter than they were written. Their numbers stay, so that a training which
    continues with shorter sequences still knows which samples it has seen.
    """

    def __init__(self, folder: Path, max_length: int) -> None:
        """Map the files that `write` left in `folder`, with each sample cut to `max_length`
        tokens.
        """
        self._about: dict[str, Any] = read_manifest(folder) or {}
        self._index = np.load(folder / _INDEX, mmap_mode="r")
        self._max_length = max_length
        tokens = folder / _TOKENS
        empty = tokens.stat().st_size == 0  # which can't be mapped
        self._words = (
            np.zeros(0, np.uint32) if empty else np.memmap(tokens, dtype=np.uint32, mode="r")
        )

    def __len__(self) -> int:
        """Return the number of samples written."""
        return len(self._index)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample, shape (samples,)."""
        return np.minimum(self._index[:, _LENGTH], self._max_length)

    @property
    def written_lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample as it was written, shape (samples,)."""
        return self._index[:, _LENGTH]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """The mask of samples with a token to learn within their length, bool, shape (samples,)."""
        return self._index[:, _FIRST] < self._max_length

    @property
    def most_learned(self) -> NDArray[np.int64]:
        """An upper bound of the tokens to learn in each sample, shape (samples,)."""
        return np.maximum(self.lengths - self._index[:, _FIRST], 0)

    @property
    def cut(self) -> int:
        """Usable samples that were longer than allowed and lost their end."""
        if self._max_length >= self._about["max_length"]:
            return int(self._about["cut"])
        return int((self.usable & (self.written_lengths > self._max_length)).sum())

    @property
    def left_out(self) -> int:
        """Samples that are not used, because nothing to learn was left of them."""
        return int(self._about["left_out"] + np.count_nonzero(~self.usable))

    @property
    def problems(self) -> Mapping[str, Mapping[str, Any]]:
        """By code, differences between samples and their rendering: the line of the first, its
        arguments, and the number of samples.
        """
        return dict(self._about.get("problems", {}))

    def line(self, number: int) -> int:
        """Return the line of the original file that a sample came from, counted from 1."""
        return int(self._index[number, _LINE])

    def tokens(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Return a sample's token ids and the mask of those to be learned, both of shape
        (length,).
        """
        offset, length = self._index[number, [_OFFSET, _LENGTH]]
        words = self._words[offset : offset + min(length, self._max_length)]
        return (words >> 1).astype(np.int32), (words & 1).astype(np.bool_)


def stored(folder: Path, origin: Mapping[str, Any], max_length: int) -> Samples | None:
    """Return the samples in `folder`, if they are whole and were made from `origin`; else None."""
    about = read_manifest(folder)
    if about is None or about.get("tokens") != FORMAT or about.get("origin") != dict(origin):
        return None
    return Samples(folder, max_length) if damaged_files(folder) == [] else None


def write(
    folder: Path, samples: Iterable[Encoded], max_length: int, origin: Mapping[str, Any]
) -> Samples:
    """Write samples, each cut to `max_length` tokens, into `folder` and map them.

    A sample without a token to learn (its first token is never predicted) is left out and counted.
    Problems of samples are counted by code, with the first line of each. `origin` is kept beside
    them for `stored`. Raises OSError, e.g. on a full disk.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    index, offset, cut, left_out = array("q"), 0, 0, 0
    problems: dict[str, dict[str, Any]] = {}
    with (folder / _TOKENS).open("wb") as file:
        for sample in samples:
            for problem in sample.problems:
                found = {"line": sample.line, "args": dict(problem.args), "count": 0}
                problems.setdefault(problem.code, found)["count"] += 1
            length = min(len(sample.tokens), max_length)
            try:
                first = sample.learned.index(True, 1, length)
            except ValueError:
                left_out += 1
                continue
            cut += len(sample.tokens) > length
            words = np.array(sample.tokens[:length], np.uint32) << 1
            words |= np.array(sample.learned[:length], np.uint32)
            file.write(words.tobytes())
            index.extend((offset, length, first, sample.line))
            offset += length
    np.save(folder / _INDEX, np.array(index, np.int64).reshape(-1, _LINE + 1))
    about = {"tokens": FORMAT, "origin": dict(origin), "problems": problems}
    write_manifest(folder, {**about, "max_length": max_length, "cut": cut, "left_out": left_out})
    return Samples(folder, max_length)

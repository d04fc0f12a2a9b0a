"""Tokenized samples in a mapped file: written once, read by page, never loaded as a whole.

A folder `NAME` holds `tokens.bin`, one uint32 a token (its id shifted left by one; the lowest bit
tells whether the token is to be learned), `index.npy`, one row a sample, and last of all
`about.json`, which says what the files were made from.
"""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safetraind.files.durable import read_json, sync_folder, write_json
from safetraind.worker.corpus.chat import Encoded

FORMAT = 1
_COLUMNS = 4  # offset, length, tokens to learn, line


class Samples:
    """The samples of one tokenized file, numbered from 0 in the file's order."""

    def __init__(self, folder: Path) -> None:
        """Maps what `write` left in `folder`."""
        self.about: dict[str, Any] = read_json(folder / "about.json")
        self._index = np.load(folder / "index.npy", mmap_mode="r")
        tokens = folder / "tokens.bin"
        empty = tokens.stat().st_size == 0  # which can't be mapped
        self._words = (
            np.zeros(0, np.uint32) if empty else np.memmap(tokens, dtype=np.uint32, mode="r")
        )

    def __len__(self) -> int:
        return len(self._index)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample, shape (samples,)."""
        return self._index[:, 1]

    @property
    def cut(self) -> int:
        """Samples that were longer than allowed and lost their end."""
        return int(self.about["cut"])

    @property
    def left_out(self) -> int:
        """Samples that are not here, because nothing to learn was left of them."""
        return int(self.about["left_out"])

    def line(self, number: int) -> int:
        """The line of the original file that a sample came from, counted from 1."""
        return int(self._index[number, 3])

    def tokens(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """A sample's token ids and which of them are to be learned, both of shape (length,)."""
        offset, length = self._index[number, :2]
        words = self._words[offset : offset + length]
        return (words >> 1).astype(np.int32), (words & 1).astype(np.bool_)


def stored(folder: Path, origin: Mapping[str, Any]) -> Samples | None:
    """The samples in `folder` if they are whole and were made from `origin`; else None."""
    about = read_json(folder / "about.json")
    if about is None or about.get("format") != FORMAT or about.get("origin") != dict(origin):
        return None
    return Samples(folder)


def write(
    folder: Path, samples: Iterable[Encoded], max_length: int, origin: Mapping[str, Any]
) -> Samples:
    """Writes samples, each cut to `max_length` tokens, into `folder` and maps them.

    A sample without a token to learn (its first token is never predicted) is left out and counted.
    `origin` is kept beside them for `stored`. Raises OSError, e.g. on a full disk.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    index, offset, cut, left_out = array("q"), 0, 0, 0
    with (folder / "tokens.bin").open("wb") as file:
        for sample in samples:
            length = min(len(sample.tokens), max_length)
            learned = sum(sample.learned[1:length])
            if not learned:
                left_out += 1
                continue
            cut += len(sample.tokens) > length
            words = np.array(sample.tokens[:length], np.uint32) << 1
            words |= np.array(sample.learned[:length], np.uint32)
            file.write(words.tobytes())
            index.extend((offset, length, learned, sample.line))
            offset += length
    np.save(folder / "index.npy", np.array(index, np.int64).reshape(-1, _COLUMNS))
    about = {"format": FORMAT, "origin": dict(origin), "cut": cut, "left_out": left_out}
    write_json(folder / "about.json", about)
    sync_folder(folder)
    return Samples(folder)

"""The samples of one preparation, on the disk: each as a line, and its words for comparison.

Memory holds nothing of them, so that a file larger than memory works.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

_PIECE = 1 << 20
Wanted = Callable[[int], bool]


class SampleStore:
    """Samples numbered from 0 in the order in which they are added. Close it, or use `with`."""

    def __init__(self, folder: Path) -> None:
        """Make two files without a name in `folder`. Raises OSError."""
        self._lines = TemporaryFile(dir=folder)  # noqa: SIM115 (closed with us)
        self._said = TemporaryFile(dir=folder)  # noqa: SIM115
        self._count = 0

    def __enter__(self) -> SampleStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._said.close()

    def __len__(self) -> int:
        return self._count

    def add(self, line: bytes, key: int, units: list[bytes]) -> None:
        """Add a sample: its line without an end, the hash of its words, and its words."""
        self._lines.write(line + b"\n")
        self._said.write(b"%d %s\n" % (key, b" ".join(units)))
        self._count += 1

    def lines(self, wanted: Wanted) -> Iterator[tuple[int, bytes]]:
        """Yield the numbers that are `wanted`, each with its line and the line's end."""
        return ((number, line) for number, line in _read(self._lines) if wanted(number))

    def said(self, wanted: Wanted) -> Iterator[tuple[int, int, list[bytes]]]:
        """Yield the numbers that are `wanted`, each with its key and its words."""
        for number, line in _read(self._said):
            if wanted(number):
                key, _space, units = line[:-1].partition(b" ")
                yield number, int(key), units.split(b" ") if units else []


def _read(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the numbered lines of a file. Each reader is independent, so several may run at
    once.
    """
    file.flush()
    offset, rest, number = 0, b"", 0
    while piece := os.pread(file.fileno(), _PIECE, offset):
        offset += len(piece)
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield number, line + b"\n"
            number += 1

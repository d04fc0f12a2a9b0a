"""A bounded, uniform sample of a file's lines, its longest and its oddest, for counting tokens."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from safetraind.worker.data.line_reader import Line

MAX_LINES = 8192
MAX_BYTES = 16 << 20
LONGEST = 64
ODDEST = 64
MAX_EXTRA_BYTES = 4 << 20  # of the longest, and of the oddest


@dataclass(slots=True)
class ReservoirSample:
    """Algorithm L (Li 1994), which knows beforehand which line it takes next; bytes are bounded.

    `seen` counts the lines offered. While all of them are kept, `complete` holds and what is
    counted on them is exact.
    """

    seen: int = 0
    _kept: list[Line] = field(default_factory=list)
    _bytes: int = 0
    _size: int = MAX_LINES
    _next: int = 0
    _weight: float = 1.0
    _longest: list[tuple[int, int, Line]] = field(default_factory=list)
    _long: int = 0
    _odd: list[Line] = field(default_factory=list)
    _odd_bytes: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def offer(self, line: Line, *, odd: bool = False) -> None:
        """Offer one more line to the sample. The first `odd` ones are kept as well."""
        self.seen += 1
        if self.seen > self._next:
            self._keep(line)
        if len(line.content) > self._long:
            self._note_long(line)
        if odd and len(self._odd) < ODDEST and self._odd_bytes < MAX_EXTRA_BYTES:
            self._odd.append(line)
            self._odd_bytes += len(line.content)

    def _keep(self, line: Line) -> None:
        if len(self._kept) < self._size:
            self._kept.append(line)
            self._bytes += len(line.content)
        else:
            place = self._random.randrange(self._size)
            self._bytes += len(line.content) - len(self._kept[place].content)
            self._kept[place] = line
        self._shed()
        if len(self._kept) >= self._size:
            uniform = self._random.random
            self._weight *= math.exp(math.log(uniform()) / self._size)
            skipped = math.log(uniform()) / math.log(1 - min(self._weight, 1 - 1e-12))
            self._next = self.seen + int(skipped)

    @property
    def complete(self) -> bool:
        """Whether every line that was offered is still in the sample."""
        return self.seen == len(self._kept)

    def __iter__(self) -> Iterator[Line]:
        """Yield the sampled lines."""
        return iter(self._kept)

    def longest(self) -> Iterator[Line]:
        """Yield the lines with the most bytes, where the sample may have missed them."""
        return iter([] if self.complete else [line for _, _, line in self._longest])

    def odd(self) -> Iterator[Line]:
        """Yield the first odd lines, where the sample may have missed them."""
        return iter([] if self.complete else self._odd)

    def _shed(self) -> None:
        """Drop lines at random until the rest fits; the sample is smaller from then on."""
        while self._bytes > MAX_BYTES and len(self._kept) > 1:
            place = self._random.randrange(len(self._kept))
            self._bytes -= len(self._kept[place].content)
            self._kept[place] = self._kept[-1]
            self._kept.pop()
            self._size = len(self._kept)

    def _note_long(self, line: Line) -> None:
        entry = (len(line.content), self.seen, line)
        if len(self._longest) < LONGEST:
            heapq.heappush(self._longest, entry)
        else:
            heapq.heapreplace(self._longest, entry)
        held = sum(size for size, _, _ in self._longest)
        while held > MAX_EXTRA_BYTES and len(self._longest) > 1:
            held -= heapq.heappop(self._longest)[0]
        if len(self._longest) == LONGEST:
            self._long = self._longest[0][0]

"""A job's event file and its readers, each at its own speed, without queues for slow ones."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from safetrain_shared.events import Event
from safetraind.storage import event_file

CHUNK_EVENTS = 256
_CHUNKS_KEPT = 4


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Events in a row, the byte behind them, and whether the file had more when it was read."""

    events: tuple[Event, ...]
    end: int
    more: bool


class EventFeed:
    """One event file. Watchers that stand at the same byte share what was read for the first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = asyncio.Event()
        self._changes = 0
        self._size = self.size()
        self._chunks: OrderedDict[tuple[int, int], Chunk] = OrderedDict()
        self._marks: list[tuple[int, int]] = [(0, 0)]  # (seq, byte behind it), a sparse index

    def size(self) -> int:
        """Return the size of the file, in bytes."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def start(self, after_seq: int) -> int:
        """Return an offset from which no event after `after_seq` is missed."""
        return self._marks[bisect_right(self._marks, (after_seq, 1 << 62)) - 1][1]

    def read(self, offset: int) -> Chunk:
        """Return the events from byte `offset` on, at most `CHUNK_EVENTS`."""
        size = self.size()
        if size < self._marks[-1][1]:
            self._marks = [(0, 0)]  # cut short: what was known of it is void
        key = (offset, size)
        chunk = self._chunks.get(key)
        if chunk is None:
            chunk = self._chunks[key] = self._read(offset, size)
            if len(self._chunks) > _CHUNKS_KEPT:
                self._chunks.popitem(last=False)
        return chunk

    def _read(self, offset: int, size: int) -> Chunk:
        events: list[Event] = []
        end = offset
        for item in event_file.read(self._path, offset):
            events.append(item.event)
            end = item.end
            if len(events) == CHUNK_EVENTS:
                break
        seq = max((event.seq for event in events), default=0)
        if seq > self._marks[-1][0] and end > self._marks[-1][1]:
            self._marks.append((seq, end))
        return Chunk(tuple(events), end, len(events) == CHUNK_EVENTS and end < size)

    def release(self) -> None:
        """Drop the cached events. They are read again on demand."""
        self._chunks.clear()

    def look(self) -> None:
        """Wake the watchers if the file's size has changed."""
        size = self.size()
        if size != self._size:
            self._size = size
            self.wake()

    def wake(self) -> None:
        """Wake all watchers."""
        self._changes += 1
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def changes(self) -> int:
        """The number of times that watchers were woken. Note it before reading."""
        return self._changes

    async def changed(self, since: int) -> None:
        """Wait for a `wake` after `since`. One that came while a batch was sent counts too."""
        if self._changes == since:
            await self._changed.wait()

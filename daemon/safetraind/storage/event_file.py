"""The event file of a run: lines with a checksum, one writer at a time, any number of readers.

A line is eight hex digits of CRC-32, a space, a JSON object, a newline. The writer is the process
that holds the run's lock: the worker while one lives, else the daemon. Readers need no lock; a line
without its newline is not there yet.

The first line holds the number of the file's format, as an event of the kind `format` with the
`seq` 0, which versions that do not know it skip. A file without it is of format 1. The number rises
when an older version would misread the file; a new kind of event keeps it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.errors import Incompatible
from safetrain_shared.events import KIND_OF, KINDS, Body, Damaged, Event
from safetraind.storage import durable
from safetraind.storage.documents import check_format
from safetraind.storage.durable import NotAFile, open_file

MAX_LINE_BYTES = 1 << 20
FORMAT = 1
_FORMAT_KIND = "format"


def encode(seq: int, attempt: int, now: float, body: Body) -> bytes:
    """Return the line of an event, newline included. `now`: seconds since the epoch, UTC."""
    head = {"seq": seq, "attempt": attempt, "time": now, "kind": KIND_OF[type(body)]}
    return _line({**head, **to_plain(body)})


def _header() -> bytes:
    """Return the first line of a file."""
    head = {"seq": 0, "attempt": 0, "time": time.time(), "kind": _FORMAT_KIND}
    return _line({**head, "format": FORMAT})


def _line(data: dict[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode(line: bytes) -> Event | int | None:
    """Return the event of a line without its newline; None where checksum or content are wrong.

    Of the line that holds the file's format, that number.
    """
    try:
        if line[8:9] != b" " or int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        data = _parsed(line[9:])
        return int(data["format"]) if data["kind"] == _FORMAT_KIND else _event(data)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _event(data: dict[str, Any]) -> Event:
    """Return the event of a line; without a body where its kind is a newer version's."""
    cls = KINDS.get(data["kind"])
    body = from_plain(data, cls) if cls else None
    return Event(data["seq"], data["attempt"], data["time"], data["kind"], body)


def _parsed(text: bytes) -> Any:
    """Decode with msgspec, six times as fast as `json`, which knows the NaN of a diverged loss."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)


@dataclass(frozen=True, slots=True)
class Read:
    """An event, or a damaged range, and the byte behind it, where the next reading begins."""

    event: Event
    end: int


def read(path: Path, offset: int = 0) -> Iterator[Read]:
    """Yield all complete lines of the file from byte `offset` on.

    Lines appended meanwhile are left to the next reading. Adjacent bad lines are yielded as one
    `Damaged` with the bytes they span. A missing file yields nothing, and neither does a path that
    is no file. Raises Incompatible for a file of a newer version's format.
    """
    try:
        descriptor = open_file(path, os.O_RDONLY)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, NotAFile):
        return
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(offset)
        bad_from: int | None = None
        while offset < size and _is_whole(line := file.readline(MAX_LINE_BYTES)):
            start, offset = offset, offset + len(line)
            event = decode(line[:-1])
            if event is None:
                bad_from = start if bad_from is None else bad_from
                continue
            if isinstance(event, int):
                check_format({"format": event}, FORMAT, path)
                continue
            if bad_from is not None:
                yield _damaged(bad_from, start)
                bad_from = None
            yield Read(event, offset)
        if bad_from is not None:
            yield _damaged(bad_from, offset)


def _is_whole(line: bytes) -> bool:
    """Return whether the line is complete. One that is too long is no event, but more may follow
    it.
    """
    return line.endswith(b"\n") or len(line) == MAX_LINE_BYTES


def _damaged(first: int, end: int) -> Read:
    body = Damaged(first, end - 1)
    return Read(Event(0, 0, 0.0, "damaged", body), end)


def read_known(path: Path) -> Iterator[Read]:
    """Yield events as `read` does; nothing for a file of a newer version."""
    with contextlib.suppress(Incompatible):
        yield from read(path)


def check_readable(path: Path) -> None:
    """Raise Incompatible where the file is of a newer version's format."""
    next(read(path), None)


def last_seq(path: Path) -> int:
    """Return the highest `seq` in the file; 0 where there is none."""
    return max((r.event.seq for r in read(path)), default=0)


class EventWriter:
    """Appends events. Process death can't lose a line once `append` returned; `sync` outlives
    a power cut.
    """

    def __init__(self, path: Path, attempt: int, floor: int = 0) -> None:
        """Open `path` for appending. No `seq` at or below `floor` is given out."""
        self._path = path
        self._attempt = attempt
        self._seq = max(floor, last_seq(path))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(path, flags | os.O_NONBLOCK, 0o600)  # never waits for a FIFO's reader
        self._mend_tail()

    @property
    def last_seq(self) -> int:
        """The `seq` given out last."""
        return self._seq

    def append(self, body: Body) -> int:
        """Write one event and return its `seq`.

        Raises OSError, e.g. on a full disk. The event is then not in the file, and the next one
        gets its `seq`.
        """
        self._write(encode(self._seq + 1, self._attempt, time.time(), body))
        self._seq += 1
        return self._seq

    def sync(self) -> None:
        """Sync all appended events to the disk."""
        durable.sync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _write(self, line: bytes) -> None:
        """Append a line, or leave the file as it was and raise OSError.

        The first one brings the header with it: a full disk refuses both or none.
        """
        size = os.fstat(self._fd).st_size
        if size == 0:
            line = _header() + line
        try:
            written = os.write(self._fd, line)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, size)
            raise
        if written != len(line):
            os.ftruncate(self._fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _mend_tail(self) -> None:
        """End a torn last line, so that it reads as damaged and the next one stands alone."""
        size = os.fstat(self._fd).st_size
        if size == 0:
            return
        with self._path.open("rb") as file:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                os.write(self._fd, b"\n")

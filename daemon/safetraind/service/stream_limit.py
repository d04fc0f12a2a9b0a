"""The limit on streams that are open at once, over all connections together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from safetrain_shared.errors import Busy

MAX_STREAMS = 200


class Streams:
    """Counts open streams. A stream beyond the limit is refused rather than left waiting."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self._limit = limit
        self._open = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one more stream while the block runs. Raises Busy at the limit."""
        if self._open >= self._limit:
            raise Busy("daemon.streams_full", limit=self._limit)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

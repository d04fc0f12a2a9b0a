"""How many streams may be open at once, over all connections together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from safetrain_shared.errors import Busy

MAX_STREAMS = 200


class Streams:
    """The streams that are open; one too many is refused with a sentence, not left to wait."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self._limit = limit
        self._open = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Counts one more while the block runs. Raises Busy where there is no room for it."""
        if self._open >= self._limit:
            raise Busy("daemon.streams_full", limit=self._limit)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

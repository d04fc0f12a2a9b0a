"""Ends a streamed answer before the first of its stop texts. Pure."""

from __future__ import annotations

from collections.abc import Sequence


class StopTexts:
    """Passes an answer's pieces on, and ends before a stop text, also one cut over two pieces.

    What may be the beginning of a stop text is held back until the next piece decides.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """`stops`: texts of at least one character each. Without any, all text passes."""
        self._stops = tuple(stops)
        self._held = ""
        self.reached = False

    def take(self, piece: str) -> str:
        """Return the text that can be passed on once `piece` has come.

        After a stop text `reached` is true, and what the answer continues with is dropped.
        """
        if self.reached:
            return ""
        text = self._held + piece
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.reached, self._held = True, ""
            return text[: min(found)]
        kept = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def rest(self) -> str:
        """Return the text that was held back, after an answer that ended without a stop text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`, shorter than `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)

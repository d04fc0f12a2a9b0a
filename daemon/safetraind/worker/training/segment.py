"""A segment of a training: after some minutes the worker leaves, and the GPU rests."""

from __future__ import annotations

import time

from safetrain_shared.events import Outcome
from safetrain_shared.findings import Finding


class Segment:
    """The segment that begins now, before optimizer step `step` + 1."""

    def __init__(self, minutes: float, step: int) -> None:
        """`minutes`: the length of the segment; 0: the whole training."""
        self._first = step
        self._ends = time.monotonic() + 60 * minutes if minutes else None

    def ended(self, step: int) -> Outcome | None:
        """Return the outcome with which to leave after `step` steps, at least one of them in this
        segment; None to continue.
        """
        if self._ends is None or step == self._first or time.monotonic() < self._ends:
            return None
        return Outcome("paused", Finding("train.segment", args={"step": step}))

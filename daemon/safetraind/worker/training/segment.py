"""A segment of a training: after some minutes the worker leaves, and the GPU rests."""

from __future__ import annotations

import time

from safetrain_shared.events import Outcome
from safetrain_shared.findings import Finding
from safetrain_shared.settings import TrainingSettings


class Segment:
    """The segment that begins now, before optimizer step `step` + 1."""

    def __init__(self, settings: TrainingSettings, step: int) -> None:
        """Without `segment_minutes` it is the whole training."""
        self._settings = settings
        self._first = step
        self._began = time.monotonic()

    def ended(self, step: int) -> Outcome | None:
        """Return the outcome with which to leave after `step` steps, at least one of them in this
        segment; None to continue.
        """
        length = 60 * self._settings.segment_minutes
        if not length or step == self._first or self._elapsed < length:
            return None
        return Outcome("paused", Finding("train.segment", args={"step": step}))

    def rests(self, training: float) -> float:
        """Return the seconds of rest before another `training` seconds of training are over."""
        return self._settings.rest_seconds(self._elapsed + training)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

"""Finds ranks that hang, from their heartbeats, and ends all ranks of that training."""

from __future__ import annotations

import time
from collections.abc import Sequence

from safetrain_shared.findings import Finding, Status
from safetrain_shared.paths import RunFolder
from safetraind.processes.supervisor import kill_workers
from safetraind.storage import documents
from safetraind.storage.run_folder import Beat

START_SECONDS = 120.0  # until a rank's first beat
END_SECONDS = 10.0  # for the others to end after rank 0
CONFIRM_SECONDS = 2.0  # between two looks that both find nothing new: all may have stood still
_LOOK_SECONDS = 1.0


def hang(beats: Sequence[Beat | None], now: float, started: float) -> Finding | None:
    """Return the finding on ranks that hang; None where they may be waited for. Pure.

    `beats`: the last one of each rank, None where there is none yet; `now` and `started`: seconds
    of the machine's monotonic clock. A sum needs all ranks: as long as one of them may take its
    time, the others wait for it. They hang once the patience of each is over.
    """
    waits = [beat.time + beat.patience if beat else started + START_SECONDS for beat in beats]
    if beats[0] and beats[0].state == "ended":
        waits = [beats[0].time + END_SECONDS]
    if now <= max(waits):
        return None
    args = {
        "ranks": len(beats),
        "step": max(beat.step if beat else 0 for beat in beats),
        "seconds": round(now - max(beat.time if beat else started for beat in beats)),
    }
    late = [str(rank) for rank, beat in enumerate(beats) if not (beat and beat.state == "waiting")]
    if not late:
        return Finding("job.ranks_stuck", Status.WARNING, args=args)
    return Finding("job.ranks_hung", Status.WARNING, args={**args, "late": ", ".join(late)})


class RankWatch:
    """Watches the living ranks of one training."""

    def __init__(self, run: RunFolder, ranks: int) -> None:
        """`ranks`: 1 for a worker that trains alone, which is not watched."""
        self._run, self._ranks = run, ranks
        self._started = self._looked = time.monotonic()
        self._late_since = self._ended_since = 0.0
        self.found: Finding | None = None

    def look(self) -> None:
        """Kill all ranks where they hang, and keep the finding in `found`."""
        now = time.monotonic()
        if self._ranks == 1 or now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        found = self._left_behind(now) or hang(self.beats(), now, self._started)
        if found is None:
            self._late_since = 0.0
            return
        self._late_since = self._late_since or now
        if now - self._late_since >= CONFIRM_SECONDS:
            self.found = self.found or found
            kill_workers(self._run)

    def beats(self) -> list[Beat | None]:
        """Return the last beat of each rank, None where there is none."""
        return beats_of(self._run, self._ranks)

    def _left_behind(self, now: float) -> Finding | None:
        """Return the finding where rank 0 has ended and others have not followed it."""
        if not self._run.exit.exists():
            return None
        self._ended_since = self._ended_since or now
        if now - self._ended_since <= END_SECONDS:
            return None
        return Finding("job.ranks_left_behind", Status.WARNING, args={"ranks": self._ranks})


def beats_of(run: RunFolder, ranks: int) -> list[Beat | None]:
    """Return the last beat of each rank of a training, None where there is none."""
    return [documents.read_known(run.rank(n).heartbeat, Beat) for n in range(ranks)]

"""Which `seq` of each job somebody may know already: none of them is ever given out again."""

from __future__ import annotations

import contextlib

from safetrain_shared.errors import NoRoom
from safetraind.jobs.store import Store

AHEAD = 1000  # the database hears of as many at a time: it is asked seldom


class Seqs:
    """Kept in memory exactly, in the database a block ahead: after a kill, an event file that ends
    below that block may have been cut short, and the next event begins above it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[int, int] = {}
        self._kept: dict[int, int] = {}

    def begin(self, job_id: int, kept: int) -> None:
        """Takes over what the database has kept of a job."""
        self._known[job_id] = self._kept[job_id] = kept

    def known(self, job_id: int) -> int:
        """The highest `seq` that may be known; 0: none is."""
        return self._known.get(job_id, 0)

    def note(self, job_id: int, seq: int) -> None:
        """All up to `seq` is about to be known. On a full disk memory alone learns it."""
        if seq <= self.known(job_id):
            return
        self._known[job_id] = seq
        if seq > self._kept.get(job_id, 0):
            self._keep(job_id, seq + AHEAD)

    def settle(self) -> None:
        """Keeps the exact numbers: from here on nobody learns more."""
        for job_id, seq in self._known.items():
            if self._kept.get(job_id) != seq:
                self._keep(job_id, seq)

    def forget(self, job_id: int) -> None:
        """The job is no more."""
        self._known.pop(job_id, None)
        self._kept.pop(job_id, None)

    def _keep(self, job_id: int, seq: int) -> None:
        with contextlib.suppress(NoRoom):
            self._store.keep_seq(job_id, seq)
            self._kept[job_id] = seq

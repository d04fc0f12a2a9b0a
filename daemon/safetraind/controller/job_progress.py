"""Each job's progress, read from its event file. That of jobs that have ended is kept in the
database.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging

from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.errors import NoRoom
from safetrain_shared.history import Progress
from safetrain_shared.jobs import FINAL
from safetrain_shared.paths import Home
from safetraind.storage.delivered_watermark import DeliveredWatermark
from safetraind.storage.event_feed import EventFeed
from safetraind.storage.job_store import JobStore

log = logging.getLogger(__name__)
_NOT_KEPT = ("step_seconds", "plan")  # of no use once a job has ended, or kept elsewhere
_AT_ONCE = 100  # jobs that have ended and are kept in one transaction


class JobProgress:
    """The event files of the jobs and the progress read from them."""

    def __init__(self, home: Home, store: JobStore) -> None:
        self._watermark = DeliveredWatermark(home)
        self._home = home
        self._store = store
        self._feeds: dict[int, EventFeed] = {}
        self._read: dict[int, tuple[int, Progress]] = {}
        self._to_keep: dict[int, str] = {}

    def feed(self, job_id: int) -> EventFeed:
        """Return the job's event file."""
        if job_id not in self._feeds:
            self._feeds[job_id] = EventFeed(self._home.run(job_id).events)
        return self._feeds[job_id]

    def of(self, job_id: int, *, ended: bool) -> Progress:
        """Return the job's progress, read from its event file. `ended`: the job is in a final
        state.
        """
        kept = self._kept(job_id) if ended else None
        if kept is not None:
            return kept
        size, progress = self._read_on(job_id)
        self.note_delivered(job_id, progress.last_seq)
        # Thousands may have ended. One whose end is still to be written is read again.
        if ended and progress.state in FINAL:
            self._keep(job_id, size, progress)
        return progress

    def is_kept(self, job_id: int) -> bool:
        """Return whether the end of the job is in the database, with all of its events."""
        return self._kept(job_id) is not None

    def known(self, job_id: int) -> int:
        """Return the highest `seq` that may be known outside; 0: none is."""
        return self._watermark.known(job_id)

    def note_delivered(self, job_id: int, seq: int) -> None:
        """Note that events up to `seq` are about to be sent, so that none of these numbers is used
        again.
        """
        self._watermark.note(job_id, seq)

    def flush(self) -> None:
        """Write the pending progress to the database. A full disk only delays it."""
        if self._to_keep:
            with contextlib.suppress(NoRoom):
                self._store.keep_progress(self._to_keep)
                self._to_keep = {}

    def forget(self, job_id: int) -> None:
        """Drop the progress of a job that was removed."""
        for known in (self._feeds, self._read, self._to_keep):
            known.pop(job_id, None)
        self._watermark.forget(job_id)

    def wake_watchers(self) -> None:
        """Wake the watchers of events."""
        for feed in self._feeds.values():
            feed.wake()

    def _read_on(self, job_id: int) -> tuple[int, Progress]:
        feed = self.feed(job_id)
        offset, progress = self._read.get(job_id, (0, Progress()))
        if feed.size() < offset:
            offset = 0
        more = True
        while more:
            chunk = feed.read(offset)
            for event in chunk.events:
                progress.take(event)
            offset, more = chunk.end, chunk.more
        self._read[job_id] = offset, progress
        return offset, progress

    def _keep(self, job_id: int, size: int, progress: Progress) -> None:
        plain = {
            field.name: to_plain(getattr(progress, field.name))
            for field in dataclasses.fields(progress)
            if field.name not in _NOT_KEPT
        }
        self._to_keep[job_id] = json.dumps({"bytes": size, "progress": plain})
        self._read.pop(job_id, None)
        feed = self._feeds.get(job_id)
        if feed is not None:
            feed.release()
        if len(self._to_keep) >= _AT_ONCE:
            self.flush()

    def _kept(self, job_id: int) -> Progress | None:
        """Return the progress in the database; None where the event file's size has changed
        since.
        """
        text = self._to_keep.get(job_id) or self._store.progress_of(job_id)
        if not text:
            return None
        try:
            kept = json.loads(text)
            if kept["bytes"] == self._home.run(job_id).events.stat().st_size:
                return from_plain(kept["progress"], Progress)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass  # the event file tells
        return None

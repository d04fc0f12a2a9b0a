"""What is kept of each job: its record, run folder, event file, progress, delivered watermark."""

from __future__ import annotations

import dataclasses

from safetrain_shared.errors import NotFound
from safetrain_shared.events import Body, StateChanged
from safetrain_shared.history import Progress
from safetrain_shared.jobs import FINAL, Plan
from safetrain_shared.paths import Home, RunFolder, private
from safetraind.controller import emit_event
from safetraind.controller.worker_exit import ineffective_fallbacks
from safetraind.scheduler.state import Job
from safetraind.storage import documents, event_file
from safetraind.storage.delivered_watermark import DeliveredWatermark
from safetraind.storage.event_feed import EventFeed
from safetraind.storage.job_document import JobDocument
from safetraind.storage.job_store import JobStore, Record


class JobFiles:
    """The jobs of one home, in the database and on the disk."""

    def __init__(self, home: Home, store: JobStore) -> None:
        self.home = home
        self.store = store
        self.watermark = DeliveredWatermark(home)
        self._records: dict[int, Record] = {}
        self._feeds: dict[int, EventFeed] = {}
        self._progress: dict[int, tuple[int, Progress]] = {}

    def load(self) -> list[Job]:
        """Every job of the database, without its plan."""
        self._records = {record.job.id: record for record in self.store.all()}
        return [record.job for record in self._records.values()]

    def with_plan(self, job: Job) -> Job:
        """The job with the plan of its run folder.

        Raises Incompatible where plan or event file are of a newer version.
        """
        run = self.run(job.id)
        event_file.check_readable(run.events)
        plan = documents.read(run.plan, Plan)
        if plan is None:
            return job
        return dataclasses.replace(job, plan=plan, ineffective=ineffective_fallbacks(run))

    def keep(self, record: Record) -> None:
        """Take in a record that is new or has changed."""
        self._records[record.job.id] = record

    def record(self, job_id: int) -> Record:
        """The job's fixed part and times. Raises NotFound."""
        if job_id not in self._records:
            raise NotFound("job.unknown", id=job_id)
        return self._records[job_id]

    def run(self, job_id: int) -> RunFolder:
        """The job's run folder."""
        return self.home.run(job_id)

    def feed(self, job_id: int) -> EventFeed:
        """The job's event file. Raises NotFound."""
        self.record(job_id)
        if job_id not in self._feeds:
            self._feeds[job_id] = EventFeed(self.run(job_id).events)
        return self._feeds[job_id]

    def progress(self, job_id: int) -> Progress:
        """How far the job is, by its event file as it is now. Raises NotFound."""
        feed = self.feed(job_id)
        offset, progress = self._progress.get(job_id, (0, Progress()))
        if feed.size() < offset:
            offset = 0
        more = True
        while more:
            chunk = feed.read(offset)
            for event in chunk.events:
                progress.take(event)
            offset, more = chunk.end, chunk.more
        self._progress[job_id] = offset, progress
        if self.record(job_id).job.state in FINAL:  # thousands may have ended
            feed.release()
        self.watermark.note(job_id, progress.last_seq)
        return progress

    def emit(self, job: Job, *bodies: Body) -> None:
        """Append events to the job's file and wake its watchers. Raises what `emit` raises."""
        known = self.watermark.known(job.id)
        last = emit_event.emit(self.run(job.id), job.attempt, known, *bodies)
        self.watermark.note(job.id, last)
        self.feed(job.id).look()

    def emit_missing_state(self, job: Job) -> None:
        """Emit the job's state where a crash or a full disk kept the event from being written."""
        ended = job.state in FINAL  # the last event is then that of the state
        known = emit_event.last_state(self.run(job.id)) if ended else self.progress(job.id).state
        if known is not job.state:
            self.emit(job, StateChanged(job.state, job.cause))

    def restore(self, job_id: int) -> None:
        """Write what a crash between database and disk may have left out."""
        run = self.run(job_id)
        private(run.root)
        if documents.read(run.spec, JobDocument) is None:  # cut or gone: the database has it too
            documents.write(run.spec, self.record(job_id).document)

    def forget(self, job_id: int) -> None:
        """Drop what is known of a job that was removed; its files and its row stay."""
        self._records.pop(job_id, None)
        self._feeds.pop(job_id, None)
        self._progress.pop(job_id, None)
        self.watermark.forget(job_id)

    def wake_watchers(self) -> None:
        """Let every watcher look again, as at the stop of the daemon."""
        for feed in self._feeds.values():
            feed.wake()

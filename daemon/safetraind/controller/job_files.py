"""Each job's record, run folder, events and progress."""

from __future__ import annotations

import dataclasses
import logging

from safetrain_shared.errors import NotFound
from safetrain_shared.events import Body, StateChanged
from safetrain_shared.history import Progress
from safetrain_shared.jobs import FINAL
from safetrain_shared.paths import Home, RunFolder, private
from safetraind.controller import emit_event
from safetraind.controller.job_progress import JobProgress
from safetraind.scheduler.state import Job
from safetraind.storage import documents
from safetraind.storage.job_document import JobDocument
from safetraind.storage.job_store import JobStore
from safetraind.storage.record import Record

log = logging.getLogger(__name__)


class JobFiles:
    """The jobs of one home, in the database and on the disk."""

    def __init__(self, home: Home, store: JobStore) -> None:
        self.home = home
        self.store = store
        self.events = JobProgress(home, store)
        self._records: dict[int, Record] = {}

    def keep(self, record: Record) -> None:
        """Keep a record that is new or has changed."""
        self._records[record.job.id] = record

    def keep_saved(self, job: Job) -> None:
        """Keep the record of a saved job. An error in reading it back is only logged."""
        try:
            self.keep(self.store.get(job.id))
        except Exception:
            log.exception("job %d: its record could not be read again", job.id)
            self.keep(dataclasses.replace(self._records[job.id], job=job))

    def record(self, job_id: int) -> Record:
        """Return the job's fixed part and times. Raises NotFound."""
        if job_id not in self._records:
            raise NotFound("job.unknown", id=job_id)
        return self._records[job_id]

    def run(self, job_id: int) -> RunFolder:
        """Return the job's run folder."""
        return self.home.run(job_id)

    def progress(self, job: Job) -> Progress:
        """Return the job's progress, read from its event file."""
        return self.events.of(job.id, ended=job.state in FINAL)

    def emit(self, job: Job, *bodies: Body) -> None:
        """Append events to the job's file and wake its watchers.

        Raises Busy while a worker writes the file, OSError on a full disk.
        """
        known = self.events.known(job.id)
        last = emit_event.emit(self.run(job.id), job.attempt, known, *bodies)
        self.events.note_delivered(job.id, last)
        self.events.feed(job.id).look()
        if job.state in FINAL:
            self.progress(job)  # for the database to keep

    def emit_missing_state(self, job: Job) -> None:
        """Emit the job's state, if a crash or a full disk kept its event from being written."""
        ended = job.state in FINAL  # the last event is then that of the state
        if ended and self.events.is_kept(job.id):
            return
        known = emit_event.last_state(self.run(job.id)) if ended else self.progress(job).state
        if known is not job.state:
            self.emit(job, StateChanged(job.state, job.cause))

    def restore(self, job_id: int) -> None:
        """Write the files that a crash after a commit of the database may have left out."""
        run = self.run(job_id)
        private(run.root)
        document = self.record(job_id).document
        if documents.read(run.spec, JobDocument) != document:  # cut, gone or changed
            documents.write(run.spec, document)

    def forget(self, job_id: int) -> None:
        """Drop a removed job from memory; its files and its row stay."""
        self._records.pop(job_id, None)
        self.events.forget(job_id)

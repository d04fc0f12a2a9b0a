"""Follows a job's events across restarts of the daemon: nothing lost, nothing twice."""

from __future__ import annotations

from collections.abc import Iterator

from safetrain.connection import Daemon, connection_lost
from safetrain.gc_pause import gc_paused
from safetrain_proto.v1.events_pb2 import EventBatch, WatchRequest
from safetrain_proto.v1.jobs_pb2 import JobRequest
from safetrain_shared.errors import SafetrainError
from safetrain_shared.events import Damaged, Event
from safetrain_shared.jobs import FINAL, JobState
from safetrain_shared.wire import event_from_wire, state_from_wire


class Follower:
    """One job's events from `after_seq` on, in order.

    `state` is how the job ended, once `batches` has come to its end.
    """

    def __init__(self, daemon: Daemon, job: int, after_seq: int = 0) -> None:
        self.state: JobState | None = None
        self._daemon = daemon
        self._job = job
        self._last = after_seq
        self._damaged: set[Damaged] = set()

    def batches(self) -> Iterator[tuple[list[Event], bool]]:
        """Lists of new events, and whether nothing more was there yet, until the job has ended.

        A daemon that goes away is waited for, or started again. Raises SafetrainError where it
        does not come back, or the job is not there.
        """
        while self.state not in FINAL:
            try:
                yield from self._connected()
            except SafetrainError as error:
                if not connection_lost(error):
                    raise
                self._daemon.recover(error)

    def _connected(self) -> Iterator[tuple[list[Event], bool]]:
        request = WatchRequest(job_id=self._job, after_seq=self._last, follow=True)
        for batch in self._daemon.stream(self._daemon.events.Watch, request):
            yield self._fresh(batch), batch.up_to_date
        job = self._daemon.call(self._daemon.jobs.Get, JobRequest(id=self._job))
        self.state = state_from_wire(job.state)

    def _fresh(self, batch: EventBatch) -> list[Event]:
        """The events not yet seen; a damaged range has no number and is known by its bytes."""
        fresh = []
        for message in batch.events:
            event = event_from_wire(message)
            if isinstance(event.body, Damaged):
                if event.body in self._damaged:
                    continue
                self._damaged.add(event.body)
            elif event.seq <= self._last:
                continue
            else:
                self._last = event.seq
            fresh.append(event)
        return fresh


def events_so_far(daemon: Daemon, job_id: int) -> list[Event]:
    """All events of a job up to now, in order. Raises SafetrainError."""
    request = WatchRequest(job_id=job_id, follow=False)
    batches = daemon.stream(daemon.events.Watch, request)
    with gc_paused():
        return [event_from_wire(message) for batch in batches for message in batch.events]

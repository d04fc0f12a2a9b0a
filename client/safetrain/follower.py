"""Follows a job's events across restarts of the daemon, each event once."""

from __future__ import annotations

from collections.abc import Iterator

from safetrain.connection import Daemon, connection_lost
from safetrain_proto.v1.events_pb2 import EventBatch, WatchRequest
from safetrain_proto.v1.jobs_pb2 import JobRequest
from safetrain_shared.errors import SafetrainError
from safetrain_shared.events import Damaged, Event
from safetrain_shared.gc_pause import gc_paused
from safetrain_shared.jobs import FINAL, JobState
from safetrain_shared.wire import event_from_wire, state_from_wire


class Follower:
    """The events of one job after `after_seq`, in order.

    `state`: the job's final state, once `batches` is exhausted.
    """

    def __init__(self, daemon: Daemon, job: int, after_seq: int = 0) -> None:
        self.state: JobState | None = None
        self._daemon = daemon
        self._job = job
        self._last = after_seq
        self._damaged: set[Damaged] = set()

    def batches(self) -> Iterator[tuple[list[Event], bool]]:
        """Yield new events and whether they reach the newest one, until the job has ended.

        Reconnects to a daemon that went away, or starts it. Raises SafetrainError where that
        fails, or the job does not exist.
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
        """Return the unseen events. A damaged range has no `seq`; its byte range identifies it."""
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
    """Return all events of a job so far, in order. Raises SafetrainError."""
    request = WatchRequest(job_id=job_id, follow=False)
    batches = daemon.stream(daemon.events.Watch, request)
    with gc_paused():
        return [event_from_wire(message) for batch in batches for message in batch.events]

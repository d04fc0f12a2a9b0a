"""`safetrain.v1.Events`: streams a job's events to each watcher, each event exactly once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from typing import Any

from safetrain_proto.v1 import events_pb2, events_pb2_grpc
from safetrain_shared.events import Event
from safetrain_shared.jobs import FINAL
from safetrain_shared.wire import event_to_wire
from safetraind.controller.controller import Controller
from safetraind.service.error_mapping import guarded
from safetraind.service.stream_limit import Streams
from safetraind.storage.event_feed import Chunk


class EventsService(events_pb2_grpc.EventsServicer):
    """Reads the event file for each watcher, from that watcher's position."""

    def __init__(self, controller: Controller, streams: Streams) -> None:
        self._controller = controller
        self._streams = streams

    @guarded
    async def Watch(  # noqa: N802
        self, request: events_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[events_pb2.EventBatch]:
        """Stream the events after `after_seq`; with `follow` until the job has ended."""
        job_id, seen, sent = request.job_id, request.after_seq, False
        feed = self._controller.feed(job_id)
        offset = feed.start(seen)
        with self._streams.one():
            while True:
                changes = feed.changes
                ended = self._ended(job_id)  # before reading: no event follows the last state
                if feed.size() < offset:
                    offset = 0  # truncated; `seen` keeps events from being delivered again
                chunk = feed.read(offset)
                batch = _batch(chunk, seen)
                delivered = _last_seq(chunk.events)
                offset, seen = chunk.end, max(seen, delivered)
                # Not `seen`: it begins with `after_seq`, which is the client's and may be anything.
                self._controller.note_delivered(job_id, delivered)
                if batch.events or (not sent and not chunk.more):
                    sent = True
                    yield batch
                if chunk.more:
                    continue
                if ended or not request.follow:
                    return
                if self._controller.stopping:
                    raise self._controller.farewell
                await feed.changed(changes)

    def _ended(self, job_id: int) -> bool:
        return self._controller.job(job_id).state in FINAL


def _batch(chunk: Chunk, seen: int) -> events_pb2.EventBatch:
    fresh = [event for event in chunk.events if event.seq > seen or event.seq == 0]
    if len(fresh) == len(chunk.events):
        return _shared_batch(chunk)
    return _to_wire(fresh, up_to_date=not chunk.more)


@lru_cache(maxsize=8)
def _shared_batch(chunk: Chunk) -> events_pb2.EventBatch:
    """Convert a chunk, cached for watchers at the same position."""
    return _to_wire(chunk.events, up_to_date=not chunk.more)


def _to_wire(events: Iterable[Event], *, up_to_date: bool) -> events_pb2.EventBatch:
    messages = [event_to_wire(event) for event in events]
    return events_pb2.EventBatch(events=messages, up_to_date=up_to_date)


def _last_seq(events: Iterable[Event]) -> int:
    return max((event.seq for event in events), default=0)

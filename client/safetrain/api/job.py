"""`Job`: a training to look at, to follow, to wait for and to steer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from safetrain.api.metrics import Metrics
from safetrain.connection import Daemon
from safetrain.follower import Follower
from safetrain.views.json_output import message_to_json
from safetrain_proto.v1 import jobs_pb2
from safetrain_proto.v1.events_pb2 import WatchRequest
from safetrain_proto.v1.jobs_pb2 import JobRequest, MoveJobRequest, RemoveJobRequest
from safetrain_shared.events import Evaluated, Event, StepDone
from safetrain_shared.jobs import JobSpec, JobState, Plan
from safetrain_shared.wire import event_from_wire, plan_from_wire, spec_from_wire, state_from_wire


class Job:
    """One job. What it tells is fetched when asked for, so it is never stale."""

    def __init__(self, daemon: Daemon, message: jobs_pb2.Job) -> None:
        self._daemon = daemon
        self._spec = spec_from_wire(message.spec)
        self.id = int(message.id)

    def __repr__(self) -> str:
        return f"Job({self.id}, {self.state})"

    @property
    def spec(self) -> JobSpec:
        """What was asked for."""
        return self._spec

    @property
    def state(self) -> JobState | None:
        """Where it stands; None for a state that only a newer version knows."""
        return state_from_wire(self._fetched().state)

    @property
    def plan(self) -> Plan | None:
        """What was decided for this machine; None until it is frozen."""
        message = self._fetched()
        return plan_from_wire(message.plan) if message.HasField("plan") else None

    @property
    def last_seq(self) -> int:
        """The number of its newest event."""
        return int(self._fetched().last_seq)

    @property
    def status(self) -> dict[str, Any]:
        """Everything about it, as `safetrain status --json` prints it."""
        return message_to_json(self._fetched())

    @property
    def metrics(self) -> Metrics:
        """Its numbers so far, one row a logged or evaluated step."""
        request = WatchRequest(job_id=self.id, follow=False)
        batches = self._daemon.stream(self._daemon.events.Watch, request)
        return Metrics(event_from_wire(message) for batch in batches for message in batch.events)

    def events(self, after_seq: int = 0) -> Iterator[Event]:
        """Its events behind number `after_seq`, as they come, until it has ended.

        Goes on across restarts of the daemon: none is lost, none comes twice.
        """
        for events, _up_to_date in Follower(self._daemon, self.id, after_seq).batches():
            yield from events

    def steps(self) -> Iterator[StepDone]:
        """Each logged step as it is done, until the job has ended."""
        return (event.body for event in self.events() if isinstance(event.body, StepDone))

    def evaluations(self) -> Iterator[Evaluated]:
        """Each evaluation as it is done, until the job has ended."""
        return (event.body for event in self.events() if isinstance(event.body, Evaluated))

    def wait(self) -> JobState:
        """Waits until it has ended and says how: succeeded, failed or cancelled."""
        follower = Follower(self._daemon, self.id, self.last_seq)
        for _events in follower.batches():
            pass
        assert follower.state is not None  # that is what ends the batches
        return follower.state

    def pause(self) -> None:
        """Pauses it at its next step, with a checkpoint. Raises AlreadyFinished."""
        self._ask(self._daemon.jobs.Pause)

    def resume(self) -> None:
        """Lets it go on; it comes to the head of the queue. Raises Conflict, AlreadyFinished."""
        self._ask(self._daemon.jobs.Resume)

    def cancel(self) -> None:
        """Ends it at its next step, with a checkpoint. Raises AlreadyFinished."""
        self._ask(self._daemon.jobs.Cancel)

    def retry(self) -> None:
        """Tries it again from its last checkpoint, where it failed or was cancelled."""
        self._ask(self._daemon.jobs.Retry)

    def move(self, *, first: bool = True) -> None:
        """Moves it to the front or the end of the queue. Raises Conflict where it is not there."""
        self._daemon.call(self._daemon.jobs.Move, MoveJobRequest(id=self.id, first=first))

    def remove(self, *, files: bool = False) -> list[str]:
        """Forgets it; with `files` deletes what it wrote. Returns the files that were kept."""
        request = RemoveJobRequest(id=self.id, files=files)
        return list(self._daemon.call(self._daemon.jobs.Remove, request).kept)

    def _ask(self, method: Any) -> None:
        self._daemon.call(method, JobRequest(id=self.id))

    def _fetched(self) -> jobs_pb2.Job:
        return self._daemon.call(self._daemon.jobs.Get, JobRequest(id=self.id), again=True)

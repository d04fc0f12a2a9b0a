"""What all tabs share: the list of jobs, and one gRPC watch a job. Threads fill it, tabs look.

Nothing is queued for a tab: it takes what is there when it looks. So a slow one costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from safetrain.autostart import answers
from safetrain.connection import Daemon, connection_lost
from safetrain.follower import Follower
from safetrain.page import page_json
from safetrain_proto.v1.control_pb2 import InfoRequest, InfoResponse
from safetrain_proto.v1.jobs_pb2 import Job, ListJobsRequest
from safetrain_shared.errors import Incompatible, SafetrainError
from safetrain_shared.events import Event, PhaseChanged, StepDone
from safetrain_shared.history import History

POLL_SECONDS = 1.0
_CALL_SECONDS = 5.0
_LOG = 200  # entries of a job's log that are kept
_WATCHES = 16  # jobs whose stories are kept
_SHARE = 0.05  # of a core, at most, for drawing curves


class JobFeed:
    """The daemon as the tabs see it."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.jobs: Sequence[Job] | None = None  # None: not yet asked
        self.info = InfoResponse()
        self.trouble: SafetrainError | None = None  # why the daemon does not answer
        self._looked = threading.Event()
        self._watches: dict[int, Watch] = {}

    def start(self) -> None:
        """Begins to ask for the jobs, as long as somebody looks."""
        threading.Thread(target=self._poll, name="jobs", daemon=True).start()

    def look(self) -> Sequence[Job] | None:
        """The jobs as last heard."""
        self._looked.set()
        return self.jobs

    def watch(self, job: Job) -> Watch:
        """The watch of a job, shared by all tabs; one that had ended goes on after a retry."""
        watch = self._watches.pop(job.id, None) or Watch(self.daemon, job.id)
        self._watches[job.id] = watch  # the last looked at stands last
        for id_ in list(self._watches)[:-_WATCHES]:
            if not self._watches[id_].running:
                del self._watches[id_]
        watch.follow(job.last_seq)
        return watch

    def _poll(self) -> None:
        while True:
            self._looked.wait()
            self._looked.clear()
            try:
                self._ask()
                self.trouble = None
            except SafetrainError as error:
                self.trouble = error
                wait_until_back(self.daemon, error)
            time.sleep(POLL_SECONDS)

    def _ask(self) -> None:
        daemon = self.daemon
        if self.trouble or not self.info.pid:
            with contextlib.suppress(Incompatible):  # it only says who answers
                self.info = daemon.call(daemon.control.Info, InfoRequest(), seconds=_CALL_SECONDS)
        listed = daemon.call(daemon.jobs.List, ListJobsRequest(), seconds=_CALL_SECONDS)
        self.jobs = listed.jobs


class Watch:
    """One job's story as it grows, across restarts of the daemon."""

    def __init__(self, daemon: Daemon, job: int) -> None:
        self.lock = threading.Lock()  # around story and log
        self.history = History()
        self.log: deque[Event] = deque(maxlen=_LOG)
        self.running = False
        self._daemon = daemon
        self._job = job
        self._seq = 0
        self._version = 0
        self._drawn = -1
        self._not_before = 0.0
        self._again = 0.0  # when following may begin anew
        self._curves = ""

    def follow(self, last_seq: int) -> None:
        """Follows the job from where it was left; nothing to do where it is followed already."""
        started = time.monotonic()
        if not self.running and last_seq > self._seq and started >= self._again:
            self.running, self._again = True, started + POLL_SECONDS
            threading.Thread(target=self._run, name=f"job {self._job}", daemon=True).start()

    def curves(self) -> str:
        """The curves as JSON, drawn anew where there is news and it would not cost too much."""
        started = time.monotonic()
        if self._drawn != self._version and started >= self._not_before:
            with self.lock:
                drawn, self._drawn = page_json.curves(self.history), self._version
            self._curves = compact(drawn)
            now = time.monotonic()
            self._not_before = now + (now - started) / _SHARE
        return self._curves

    def _run(self) -> None:
        follower = Follower(self._daemon, self._job, self._seq)
        try:
            while True:
                try:
                    for events, _up_to_date in follower.batches():
                        self._take(events)
                    return
                except SafetrainError as error:
                    if not connection_lost(error):
                        return  # the job was removed: the list tells it
                    wait_until_back(self._daemon, error)
        finally:
            self.running = False

    def _take(self, events: Sequence[Event]) -> None:
        with self.lock:
            for event in events:
                self.history.take(event)
                self._seq = max(self._seq, event.seq)
                if not isinstance(event.body, StepDone | PhaseChanged):
                    self.log.append(event)
            self._version += len(events)


def wait_until_back(daemon: Daemon, error: SafetrainError) -> None:
    """Returns when a daemon that was lost is back, be it hours later; at once for other errors."""
    while connection_lost(error):
        try:
            daemon.recover(error)
            return
        except SafetrainError as another:
            error = another
        while not _there(daemon):
            time.sleep(POLL_SECONDS)


def compact(value: Any) -> str:
    """A value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _there(daemon: Daemon) -> bool:
    try:
        return answers(daemon.home)
    except SafetrainError:
        return False

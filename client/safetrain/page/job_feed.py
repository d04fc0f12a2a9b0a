"""The state shared by all tabs: the list of jobs and one gRPC watch per job, kept by threads.

Nothing is queued for a tab: it reads the present state when it is ready, so slow tabs cost nothing.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from safetrain.connection import Daemon, connection_lost
from safetrain.follower import Follower
from safetrain.page import job_texts
from safetrain.views.job import ENDED, name_of
from safetrain_proto.v1.control_pb2 import InfoRequest, InfoResponse
from safetrain_proto.v1.jobs_pb2 import Job, JobRequest, ListJobsRequest
from safetrain_shared.daemon_socket import answers
from safetrain_shared.errors import Incompatible, NotFound, SafetrainError
from safetrain_shared.events import Event, PhaseChanged, StateChanged, StepDone
from safetrain_shared.history import History

POLL_SECONDS = 1.0  # between two looks whether the daemon is back
_LIST_SECONDS = 2.0  # between two listings of the jobs, unless something was changed
_CALL_SECONDS = 5.0
_WANTED_SECONDS = 10.0  # that a job is fetched for a tab that no longer asks for it
_LOG_ENTRIES = 100  # kept of a job's log
ENDED_SHOWN = 30  # ended jobs, on the page at first and at each press of the button for more
_PAGE = 100
_WATCHES = 16  # jobs whose history is kept
_CURVES_SHARE = 0.002  # of a core, at most, for computing the curves of a job that goes on


class JobFeed:
    """The list of jobs and the watches of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.jobs: Sequence[Job] | None = None  # None: not fetched yet
        self.info = InfoResponse()
        self.trouble: SafetrainError | None = None  # why the daemon does not answer
        self.version = 0  # rises with every change of what was fetched
        self.left_out = 0  # ended jobs that are not among them
        self._wanted: dict[int, float] = {}  # jobs that tabs show, and when they last said so
        self._in_use = threading.Event()
        self._hurried = threading.Event()
        self._fetching = threading.Lock()
        self._watches: dict[int, JobWatch] = {}

    def start(self) -> None:
        """Start fetching the jobs, every two seconds while a tab is open."""
        threading.Thread(target=self._poll, name="jobs", daemon=True).start()

    def latest(self, wanted: int = 0) -> Sequence[Job] | None:
        """Return the live jobs, the newest that have ended, and job `wanted`, as last fetched."""
        if wanted:
            self._wanted[wanted] = time.monotonic()
        self._in_use.set()
        return self.jobs

    def now(self, wanted: int = 0) -> Sequence[Job]:
        """Return the same, fetched first where that was not done yet; [] while nothing answers."""
        known = self.latest(wanted)
        if known is not None and (not wanted or any(job.id == wanted for job in known)):
            return known
        with contextlib.suppress(SafetrainError):
            self._fetch()
        return self.jobs or []

    def hurry(self) -> None:
        """Fetch the jobs soon: something was changed."""
        self._hurried.set()

    def older(self, shown: int) -> tuple[Sequence[Job], bool]:
        """Return the ended jobs before the `shown` newest, the newest first, and whether there are
        more. Raises SafetrainError.
        """
        request = ListJobsRequest(ended_limit=shown + ENDED_SHOWN, page_size=_PAGE)
        found = self.daemon.call(self.daemon.jobs.List, request, seconds=_CALL_SECONDS)
        ended = [job for job in found.jobs if name_of(job) in ENDED][:ENDED_SHOWN]
        return ended[::-1], found.left_out > 0

    def watch(self, job: Job) -> JobWatch:
        """Return the watch of a job, shared by all tabs; it goes on after a retry."""
        watch = self._watches.pop(job.id, None) or JobWatch(self.daemon, job.id, self.hurry)
        self._watches[job.id] = watch  # the most recently used is last
        for id_ in list(self._watches)[:-_WATCHES]:
            if not self._watches[id_].running:
                del self._watches[id_]
        watch.follow(job.last_seq)
        return watch

    def _poll(self) -> None:
        while True:
            self._in_use.wait()
            self._in_use.clear()
            try:
                self._fetch()
                self.trouble = None
            except SafetrainError as error:
                self.trouble = error
                wait_until_back(self.daemon, error)
            self._hurried.wait(_LIST_SECONDS)
            self._hurried.clear()

    def _fetch(self) -> None:
        with self._fetching:
            self._fetch_jobs(self.daemon)

    def _fetch_jobs(self, daemon: Daemon) -> None:
        if self.trouble or not self.info.pid:
            with contextlib.suppress(Incompatible):  # only for display
                self.info = daemon.call(daemon.control.Info, InfoRequest(), seconds=_CALL_SECONDS)
        request = ListJobsRequest(ended_limit=ENDED_SHOWN)
        listed = daemon.call(daemon.jobs.List, request, seconds=_CALL_SECONDS)
        jobs = {job.id: job for job in listed.jobs}
        recent = time.monotonic() - _WANTED_SECONDS
        wanted = {number for number, asked in list(self._wanted.items()) if asked > recent}
        for number in wanted - jobs.keys():
            with contextlib.suppress(NotFound):
                one = daemon.call(daemon.jobs.Get, JobRequest(id=number), seconds=_CALL_SECONDS)
                jobs[number] = one
        found = list(jobs.values())
        if found != self.jobs or self.left_out != listed.left_out:
            self.jobs, self.left_out = found, listed.left_out
            self.version += 1


class JobWatch:
    """The history and log of one job, followed across restarts of the daemon.

    `on_state`: called when the job's state changes.
    """

    def __init__(self, daemon: Daemon, job: int, on_state: Callable[[], None]) -> None:
        self.lock = threading.Lock()  # guards history and log
        self.history = History()
        self.log: deque[Event] = deque(maxlen=_LOG_ENTRIES)
        self.running = False
        self._daemon = daemon
        self._job = job
        self._on_state = on_state
        self._seq = 0
        self.version = 0
        self.logged = 0  # events that were ever added to the log
        self._up_to_date = False  # what happened before has been read
        self._curves_version = -1
        self._not_before = 0.0  # the next computation of curves
        self._restart_at = 0.0  # the earliest next start of the thread
        self._curves = ""

    def follow(self, last_seq: int) -> None:
        """Follow the job from the last event seen, unless a thread already does."""
        started = time.monotonic()
        if not self.running and last_seq > self._seq and started >= self._restart_at:
            self.running, self._restart_at = True, started + POLL_SECONDS
            threading.Thread(target=self._run, name=f"job {self._job}", daemon=True).start()

    def curves(self) -> str:
        """Return the curves as JSON, recomputed after changes within the limit on CPU time.

        The first ones hold all that happened before, and the last ones of a job that has ended are
        there at once.
        """
        started = time.monotonic()
        due = not self.running or (self._up_to_date and started >= self._not_before)
        if self._curves_version != self.version and due:
            with self.lock:
                points, self._curves_version = job_texts.curves(self.history), self.version
            self._curves = compact(points)
            now = time.monotonic()
            self._not_before = now + (now - started) / _CURVES_SHARE
        return self._curves

    def _run(self) -> None:
        follower = Follower(self._daemon, self._job, self._seq)
        try:
            while True:
                try:
                    for events, up_to_date in follower.batches():
                        self._take(events)
                        self._up_to_date = up_to_date or self._up_to_date
                    return
                except SafetrainError as error:
                    if not connection_lost(error):
                        return  # the job was removed
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
                    self.logged += 1
            self.version += len(events)
        if any(isinstance(event.body, StateChanged) for event in events):
            self._on_state()


def wait_until_back(daemon: Daemon, error: SafetrainError) -> None:
    """Wait until a lost daemon is back, however long; return at once for other errors."""
    while connection_lost(error):
        try:
            daemon.recover(error)
            return
        except SafetrainError as another:
            error = another
        while not _answers(daemon):
            time.sleep(POLL_SECONDS)


def compact(value: Any) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _answers(daemon: Daemon) -> bool:
    try:
        return answers(daemon.home)
    except SafetrainError:
        return False

"""The live view: draws frames on the terminal while threads follow job and queue."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live

from safetrain.connection import Daemon
from safetrain.echo import echo
from safetrain.follower import Follower
from safetrain.terminal.live_frame import FrameData, frame
from safetrain_proto.v1.jobs_pb2 import Job, JobRequest, ListJobsRequest
from safetrain_shared.errors import SafetrainError
from safetrain_shared.events import Event
from safetrain_shared.history import History
from safetrain_shared.i18n import translate as _
from safetrain_shared.jobs import JobState

_TICK_SECONDS = 0.1  # delay until a key, a resize or the end is noticed
_QUEUE_SECONDS = 3.0  # between two requests for the queue
_ANSWER_SECONDS = 1.0  # deadline of such a request
_FIRST_FRAME_SECONDS = 0.1  # the first frame waits so long for the job's history


def live(
    daemon: Daemon, job: Job, refresh: float, report: Callable[[Event], None]
) -> JobState | None:
    """Show the job until it ends and return its final state; None where the user left before.

    `refresh`: seconds between two frames. `report` is called with every event. Raises
    SafetrainError where the job cannot be followed.
    """
    reader = _Reader(daemon, job, report)
    daemon.notify = reader.hint
    console = Console(highlight=False)
    reader.start()
    reader.queue.start()
    reader.caught_up.wait(_FIRST_FRAME_SECONDS)
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as screen:
        stayed = _show(reader, console, screen, pressed, refresh)
    reader.queue.left.set()
    if not stayed:
        echo(_("Job {id} goes on. Watch it with: safetrain watch {id}").format(id=job.id))
        return None
    if reader.error:
        raise reader.error
    console.print(reader.render(console, final=True))
    return reader.state


def _show(
    reader: _Reader, console: Console, screen: Live, pressed: Callable[[], str], refresh: float
) -> bool:
    """Draw frames until the job has ended; return False where the user left before."""
    last_draw, last_state = 0.0, object()
    while True:
        ended = not reader.is_alive()
        state = (console.size, reader.caught_up.is_set(), ended)
        if ended or state != last_state or time.monotonic() - last_draw >= refresh:
            screen.update(reader.render(console), refresh=True)
            last_draw, last_state = time.monotonic(), state
        if ended:
            return True
        if pressed() in ("q", "Q"):
            return False


class _Reader(threading.Thread):
    """Follows the job in the background and holds the state that the next frame shows."""

    def __init__(self, daemon: Daemon, job: Job, report: Callable[[Event], None]) -> None:
        super().__init__(name="follow", daemon=True)
        self.queue = _Queue(daemon, job)
        self.state: JobState | None = None
        self.error: SafetrainError | None = None
        self.caught_up = threading.Event()
        self._daemon = daemon
        self._job = job.id
        self._report = report
        self._history = History()
        self._hint = ""
        self._lock = threading.Lock()

    def run(self) -> None:
        follower = Follower(self._daemon, self._job)
        try:
            for events, up_to_date in follower.batches():
                with self._lock:
                    self._hint = ""
                    for event in events:
                        self._history.take(event)
                for event in events:
                    self._report(event)
                if up_to_date:
                    self.caught_up.set()
            self.state = follower.state
        except SafetrainError as error:
            self.error = error

    def hint(self, text: str) -> None:
        """Show `text` in place of the last line until the next event."""
        self._hint = text

    def render(self, console: Console, *, final: bool = False) -> Group:
        """Return the current frame; `final`: without the line of keys."""
        width, height = console.size
        with self._lock:
            queue = self.queue
            data = FrameData(queue.job, self._history, queue.others, self._hint, time.time())
            lines = frame(data, width, height)
        return Group(*(lines[:-1] if final else lines))


class _Queue(threading.Thread):
    """Fetches job and queue every few seconds until `left` is set.

    A thread of its own: a daemon that does not answer must not delay the drawing.
    """

    def __init__(self, daemon: Daemon, job: Job) -> None:
        super().__init__(name="queue", daemon=True)
        self.job = job
        self.others: Sequence[Job] = ()
        self.left = threading.Event()
        self._daemon = daemon

    def run(self) -> None:
        while not self.left.is_set():
            self._fetch()
            self.left.wait(_QUEUE_SECONDS)

    def _fetch(self) -> None:
        daemon = self._daemon
        try:
            request = ListJobsRequest(ended_limit=1)  # only those that wait are shown
            jobs = daemon.call(daemon.jobs.List, request, seconds=_ANSWER_SECONDS).jobs
            job = next((job for job in jobs if job.id == self.job.id), None)
            if job is None:  # it has ended
                wanted = JobRequest(id=self.job.id)
                job = daemon.call(daemon.jobs.Get, wanted, seconds=_ANSWER_SECONDS)
        except (SafetrainError, ValueError):  # ValueError: the channel was closed as we left
            return
        self.others, self.job = jobs, job


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """Yield a function that waits one tick for a key press; it returns "" for none."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)

    def pressed() -> str:
        ready, _, _ = select.select([descriptor], [], [], _TICK_SECONDS)
        return os.read(descriptor, 32).decode(errors="ignore")[:1] if ready else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

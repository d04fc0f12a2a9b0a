"""The live view: draws frames on the terminal while a thread follows the job."""

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
from safetrain_proto.v1.jobs_pb2 import Job, ListJobsRequest
from safetrain_shared.errors import SafetrainError
from safetrain_shared.events import Event
from safetrain_shared.history import History
from safetrain_shared.i18n import translate as _
from safetrain_shared.jobs import JobState

_TICK_SECONDS = 0.1  # how soon a key, a resize or the end is noticed
_QUEUE_SECONDS = 3.0  # how often the queue is asked for
_ANSWER_SECONDS = 1.0  # how long its answer may take
_STORY_SECONDS = 0.1  # how long the first frame waits for the story; a short one is there sooner


def live(
    daemon: Daemon, job: Job, refresh: float, report: Callable[[Event], None]
) -> JobState | None:
    """Shows the job until it ends, and returns how; None where the user left before.

    `refresh`: seconds between two frames. `report` is given every event, too. Raises what ends the
    following of the job.
    """
    reader = _Reader(daemon, job, report)
    daemon.say = reader.hint
    console = Console(highlight=False)
    reader.start()
    reader.queue.start()
    reader.caught_up.wait(_STORY_SECONDS)
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as screen:
        stayed = _show(reader, console, screen, pressed, refresh)
    reader.queue.left.set()
    if not stayed:
        echo(_("Job {id} goes on. Watch it with: safetrain watch {id}").format(id=job.id))
        return None
    if reader.error:
        raise reader.error
    console.print(reader.picture(console, lasting=True))
    return reader.state


def _show(
    reader: _Reader, console: Console, screen: Live, pressed: Callable[[], str], refresh: float
) -> bool:
    """Draws until the job has ended; False where the user left before."""
    drawn, about = 0.0, object()
    while True:
        ended = not reader.is_alive()
        now_about = (console.size, reader.caught_up.is_set(), ended)
        if ended or about != now_about or time.monotonic() - drawn >= refresh:
            screen.update(reader.picture(console), refresh=True)
            drawn, about = time.monotonic(), now_about
        if ended:
            return True
        if pressed() in ("q", "Q"):
            return False


class _Reader(threading.Thread):
    """Follows the job in the background and keeps what the next frame shows."""

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
        """What the client is doing, in place of the last line until the next event."""
        self._hint = text

    def picture(self, console: Console, *, lasting: bool = False) -> Group:
        """The frame of this moment; `lasting`: without the line that tells the keys."""
        width, height = console.size
        with self._lock:
            queue = self.queue
            scene = FrameData(queue.job, self._history, queue.others, self._hint, time.time())
            lines = frame(scene, width, height)
        return Group(*(lines[:-1] if lasting else lines))


class _Queue(threading.Thread):
    """Asks now and then how the job stands and who waits behind, until `left` is set.

    Beside the drawing: a daemon that is away takes its time to say nothing.
    """

    def __init__(self, daemon: Daemon, job: Job) -> None:
        super().__init__(name="queue", daemon=True)
        self.job = job
        self.others: Sequence[Job] = ()
        self.left = threading.Event()
        self._daemon = daemon

    def run(self) -> None:
        while not self.left.is_set():
            self._look()
            self.left.wait(_QUEUE_SECONDS)

    def _look(self) -> None:
        daemon = self._daemon
        try:
            jobs = daemon.call(daemon.jobs.List, ListJobsRequest(), seconds=_ANSWER_SECONDS).jobs
        except (SafetrainError, ValueError):  # ValueError: the channel was closed as we left
            return
        self.others = jobs
        self.job = next((job for job in jobs if job.id == self.job.id), self.job)


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """The keyboard without Enter: a function that waits a tick for a key, "" for none."""
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

"""The training worker's events out, and its intents (pause, cancel, stop) in, both by files.

Nothing here waits for the daemon. An event that the disk has no space for is kept in memory and
tried again with the next one; `struggling` is then set, and the trainer pauses at its next
checkpoint.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable

from safetrain_shared.events import Body, Notice, PhaseChanged
from safetrain_shared.findings import Finding, Status
from safetrain_shared.paths import RunFolder
from safetraind.storage import durable
from safetraind.storage.event_file import EventWriter
from safetraind.storage.run_folder import Launch

MOST_WAITING = 500  # events
PATIENCE_SECONDS = 5.0


class EventSink:
    """One worker's event file and intent. Takes SIGTERM over, so only the main thread makes one."""

    def __init__(self, run: RunFolder, launch: Launch) -> None:
        """Open the run's event file. Raises OSError where none can be opened."""
        self.run = run
        self._intent = run.intent
        self._events = EventWriter(run.events, launch.attempt, launch.seq_floor)
        self._waiting: deque[Body] = deque(maxlen=MOST_WAITING)
        self._stopping = False
        self._phase = ""
        self.on_phase: Callable[[str], None] = lambda _phase: None
        signal.signal(signal.SIGTERM, self._on_sigterm)

    @property
    def struggling(self) -> bool:
        """Whether some events could not be written yet."""
        return bool(self._waiting)

    def emit(self, body: Body) -> None:
        """Append an event after those that wait. Of too many the oldest are dropped."""
        self._waiting.append(body)
        self._flush()

    def phase(self, phase: str) -> None:
        """Emit the worker's phase, if it has changed."""
        if phase != self._phase:
            self._phase = phase
            self.on_phase(phase)
            self.emit(PhaseChanged(phase))

    def notice(self, code: str, **args: str | int | float) -> None:
        """Emit a notice for the user."""
        self.emit(Notice(Finding(code, Status.WARNING, args=args)))

    def sync(self) -> None:
        """Sync the events to the disk."""
        self._events.sync()

    def intent(self) -> str:
        """Return the intent: `pause`, `cancel`, `stop` (SIGTERM came), or empty."""
        try:
            return durable.read_file(self._intent).decode(errors="replace").strip()
        except OSError:
            return "stop" if self._stopping else ""

    def close(self) -> bool:
        """Try for a few seconds to write the waiting events. Return False where there was no
        room.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._waiting and time.monotonic() < deadline:
            self._flush()
            time.sleep(0.1)
        if self._waiting:
            return False
        self._events.sync()
        self._events.close()
        return True

    def _flush(self) -> None:
        while self._waiting:
            try:
                self._events.append(self._waiting[0])
            except OSError:
                return
            self._waiting.popleft()

    def _on_sigterm(self, *_: object) -> None:
        self._stopping = True

"""Events that the daemon itself writes into a job's file, while it holds the run's lock."""

from __future__ import annotations

import os

from safetrain_shared.events import Body, StateChanged
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import RunFolder
from safetraind.processes.locks import lock_run
from safetraind.processes.supervisor import seq_floor
from safetraind.storage import event_file

_TAIL_BYTES = 1 << 16


def emit(run: RunFolder, attempt: int, seen: int, *bodies: Body) -> int:
    """Append events, bring them to the disk and return the last `seq`.

    `seen`: the highest `seq` known so far. Raises Busy while a worker writes the file, OSError on
    a full disk.
    """
    lock = lock_run(run)
    try:
        floor = max(seen, seq_floor(run, seen, event_file.last_seq(run.events)))
        writer = event_file.EventWriter(run.events, attempt, floor)
        try:
            for body in bodies:
                writer.append(body)
            writer.sync()
            return writer.last_seq
        finally:
            writer.close()
    finally:
        os.close(lock)


def last_state(run: RunFolder) -> JobState | None:
    """Return the state of the last such event, if it is among the last lines of the event file."""
    try:
        size = run.events.stat().st_size
    except FileNotFoundError:
        return None
    state = None
    for item in event_file.read(run.events, max(0, size - _TAIL_BYTES)):
        if isinstance(item.event.body, StateChanged):
            state = item.event.body.state
    return state

"""The end of a training worker: its last event, or an exit code where the disk has no room for
one.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable

from safetrain_shared.errors import NoRoom, SafetrainError
from safetrain_shared.events import Outcome
from safetrain_shared.findings import Finding, Status, finding_of
from safetraind.worker.training.event_sink import EventSink

_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = errno.EROFS  # as a disk becomes that has errors, or one that was mounted anew
_OUT_OF_MEMORY = (
    # What MLX's errors say (mlx 0.32: allocator, Metal device, command buffers).
    "Unable to allocate",
    "Insufficient Memory",
    "Resource limit",
    "maximum allowed buffer size",
    "[metal::malloc]",
)
_WATCHDOG = ("GPU Timeout", "Impacting Interactivity")


def run_and_report(sink: EventSink, work: Callable[[], Outcome]) -> int:
    """Run `work` and write its outcome as the worker's last event. Return the exit code.

    0: the event holds the outcome. NoRoom's code: the event file's disk is full, and the run waits
    at its last checkpoint. Any other exception is raised, and counts as a death of the worker.
    """
    try:
        outcome = work()
    except SafetrainError as error:
        outcome = Outcome("failed", finding_of(error))
    except OSError as error:
        outcome = _refused(error)
    except RuntimeError as error:
        outcome = _broken(error)
    sink.emit(outcome)
    return 0 if sink.close() else NoRoom.exit_code


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether MLX raised `error` because memory ran out. MLX has no class of its own for
    that.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)
    )


def outcome_of(intent: str, step: int) -> Outcome:
    """Return the outcome that an intent (see `EventSink.intent`) leads to, once `step` is saved."""
    if intent == "cancel":
        return Outcome("cancelled", Finding("job.cancelled_by_user"))
    code = "train.paused" if intent == "pause" else "train.stopped"
    return Outcome("paused", Finding(code, args={"step": step}))


def waiting_for_room(code: str = "train.disk_full") -> Outcome:
    """Return the outcome of a run that continues once the disk takes something again."""
    return Outcome("paused", Finding(code, Status.WARNING))


def _refused(error: OSError) -> Outcome:
    """Return the outcome of a refused write. A full or read-only disk can be mended, so the run
    only pauses.
    """
    if error.errno in _FULL:
        return waiting_for_room()
    if error.errno == _READ_ONLY:
        return waiting_for_room("train.disk_read_only")
    args = {"path": str(error.filename or "?"), "reason": error.strerror or str(error)}
    return Outcome("failed", Finding("path.unwritable", Status.FAILED, True, args))


def _broken(error: RuntimeError) -> Outcome:
    """Return the outcome of an error of MLX, which has no class for a lack of memory. Its text
    decides.
    """
    text = str(error)
    if any(sign in text for sign in _WATCHDOG):
        code = "job.gpu_watchdog"
    elif is_out_of_memory(error):
        code = "job.out_of_memory"
    else:
        raise error
    traceback.print_exc(file=sys.stderr)
    return Outcome("failed", Finding(code, Status.FAILED, True))

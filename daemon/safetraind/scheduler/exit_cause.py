"""The cause of a worker's end, and the finding on it; pure."""

from __future__ import annotations

from safetrain_shared.errors import EXIT_MEMORY, NoRoom
from safetrain_shared.findings import Finding, Status
from safetraind.scheduler.state import WorkerExit

_DISK_CODES = frozenset({"train.disk_full", "train.disk_read_only"})
_MEMORY_CODES = frozenset({"job.out_of_memory"})
_WATCHDOG = "job.gpu_watchdog"


def died_of_memory(end: WorkerExit) -> bool:
    """Return whether the worker died of memory.

    The kernel's count decides, else the last samples: a failed allocation of MLX on a CPU is a
    SIGSEGV, a Metal abort a SIGABRT.
    """
    if end.outcome == "failed":
        return end.cause is not None and end.cause.code in _MEMORY_CODES
    if end.hung is not None:
        return False  # the daemon killed it
    return end.oom_kills > 0 or end.memory_short


def died_of_watchdog(end: WorkerExit) -> bool:
    """Return whether the GPU's watchdog ended the worker, because a display waited for the GPU."""
    return end.outcome == "failed" and end.cause is not None and end.cause.code == _WATCHDOG


def ended_a_segment(end: WorkerExit) -> bool:
    """Return whether the worker left at the end of a segment, see the setting `segment_minutes`."""
    return end.outcome == "paused" and end.cause is not None and end.cause.code == "train.segment"


def left_short_of_memory(end: WorkerExit) -> bool:
    """Return whether the worker left because the system was short of memory, between two steps or
    in one.
    """
    if end.outcome == "paused":
        return end.cause is not None and end.cause.code == "train.memory_short"
    return not end.outcome and end.code == EXIT_MEMORY


def lacked_disk(end: WorkerExit) -> bool:
    """Return whether the worker left because a disk was full or read-only.

    Where there was no room even for its last event, its exit code says so.
    """
    if end.outcome == "paused":
        return end.cause is not None and end.cause.code in _DISK_CODES
    return not end.outcome and end.code == NoRoom.exit_code


def cause_of(end: WorkerExit) -> Finding:
    """Return the cause to show: the one in the worker's own last event, else the likeliest for its
    death.
    """
    if end.outcome == "failed" and end.cause is not None:
        return end.cause
    if end.hung is not None:
        return end.hung
    if end.machine_restarted and end.panic:
        return Finding("job.kernel_panic", Status.WARNING, args={"path": end.panic})
    if end.machine_restarted:
        return Finding("job.machine_restarted", Status.WARNING)
    if died_of_memory(end):
        return Finding("job.out_of_memory", Status.WARNING)
    if end.ranks > 1:
        return _cause_of_ranks(end)
    if end.signal:
        return Finding("job.worker_killed", Status.WARNING, args={"signal": end.signal})
    if end.code:
        return Finding(
            "job.worker_crashed", Status.WARNING, args={"code": end.code, "log": end.log}
        )
    return Finding("job.worker_lost", Status.WARNING)


def _cause_of_ranks(end: WorkerExit) -> Finding:
    """Return the finding on the rank whose end ended the others."""
    which: dict[str, str | int] = {"rank": end.rank, "ranks": end.ranks}
    if end.signal:
        return Finding("job.rank_killed", Status.WARNING, args={**which, "signal": end.signal})
    if end.code:
        args = {**which, "code": end.code, "log": end.log}
        return Finding("job.rank_crashed", Status.WARNING, args=args)
    return Finding("job.rank_lost", Status.WARNING, args=which)

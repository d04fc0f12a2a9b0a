"""How a worker ended, put together from its last word, its keeper's note and its launch."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any

from safetrain_shared.history import Progress
from safetrain_shared.paths import RunFolder
from safetraind import host
from safetraind.host import HostFacts
from safetraind.host.panics import panic_report
from safetraind.processes.supervisor import boot_id
from safetraind.scheduler.state import Job, WorkerExit
from safetraind.storage.durable import read_json

# A last footprint, up to two seconds old, from this share of what can be had on looks like a death
# of memory. What the training had at most is no evidence: a good plan fills its budget.
NEAR_THE_LIMIT = 0.8
_PRESSURE_WARNING = 2  # of macOS, as the keeper notes it
_SUSPECTS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)


def read_end(
    run: RunFolder, job: Job, progress: Progress, gather: Callable[[], HostFacts] = host.gather
) -> WorkerExit:
    """The end of the job's newest attempt, whose worker is gone. `gather`: the machine's facts."""
    launch = read_json(run.launch) or {}
    note = read_json(run.exit) or {}
    if note.get("attempt") != job.attempt:
        note = {}
    outcome = progress.outcome if progress.outcome_attempt == job.attempt else None
    restarted = launch.get("attempt") == job.attempt and launch.get("boot_id") != boot_id()
    restarted = restarted and not note
    suspected = note.get("signal") in _SUSPECTS
    return WorkerExit(
        outcome=outcome.outcome if outcome else "",
        cause=outcome.cause if outcome else None,
        checkpointed=progress.checkpoint_attempt == job.attempt,
        spoke=bool(note) or progress.worker_attempt == job.attempt,
        code=int(note.get("code", 0)),
        signal=int(note.get("signal", 0)),
        oom_kills=int(note.get("oom_kills") or 0),
        memory_short=suspected and _was_short(note, job, gather()),
        machine_restarted=restarted,
        panic=panic_report(_begun(run)) if restarted else "",
        log=str(run.log),
        ineffective=ineffective_fallbacks(run),
    )


def _begun(run: RunFolder) -> float:
    """When the newest attempt was started, seconds since the epoch."""
    try:
        return run.launch.stat().st_mtime
    except OSError:
        return 0.0


def ineffective_fallbacks(run: RunFolder) -> frozenset[str]:
    """The settings of the ladder that would not save the training memory, by its worker's word."""
    said = read_json(run.fallbacks) or {}
    return frozenset(name for name, saves in said.items() if not saves)


def _was_short(note: Mapping[str, Any], job: Job, machine: HostFacts) -> bool:
    """Whether what the keeper saw speaks for memory, where the kernel's count does not tell.

    Linux: SIGKILL is no death of memory where the kernel counts its kills and none was counted; an
    allocation that failed is SIGSEGV. macOS: the kernel kills only under pressure; an error of
    Metal is SIGABRT, at the share of the memory that Metal may have, of which the budget is made.
    """
    number = note["signal"]
    if machine.is_mac and int(note.get("pressure", 0)) >= _PRESSURE_WARNING:
        return True
    if not machine.is_mac and number == signal.SIGKILL and note.get("oom_kills") is not None:
        return False
    enforced = machine.memory_usable
    if machine.is_mac and number == signal.SIGABRT and job.plan is not None:
        enforced = min(enforced, job.plan.memory_budget or enforced)
    return enforced > 0 and int(note.get("footprint", 0)) >= NEAR_THE_LIMIT * enforced

"""A worker's end, put together from its last event, its keeper's note and its launch."""

from __future__ import annotations

import signal
from collections.abc import Callable

from safetrain_shared.history import Progress
from safetrain_shared.paths import RunFolder
from safetraind import host
from safetraind.controller.rank_folders import end_to_blame, last_failure, ranks_in
from safetraind.host import HostFacts
from safetraind.host.panics import panic_report
from safetraind.processes.supervisor import boot_id
from safetraind.scheduler.state import Job, WorkerExit
from safetraind.storage import documents
from safetraind.storage.durable import read_object
from safetraind.storage.run_folder import KeeperNote, Launch

# A last footprint, up to two seconds old, from this share of what can be had on looks like a death
# of memory. What the training had at most is no evidence: a good plan fills its budget.
NEAR_THE_LIMIT = 0.8
_PRESSURE_WARNING = 2  # of macOS, as the keeper notes it
_SUSPECTS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)


def read_end(
    run: RunFolder,
    job: Job,
    progress: Progress,
    gather: Callable[[], HostFacts] = host.gather,
    *,
    observed: bool = False,
) -> WorkerExit:
    """Return the end of the job's newest attempt, whose worker has died.

    `gather` returns the machine's facts. `observed`: this daemon followed the worker to its end.
    Its start then counts even where neither worker nor keeper wrote anything.
    """
    launch, ranks = documents.read_known(run.launch, Launch), ranks_in(run, job)
    rank, found = end_to_blame([_note(run.rank(n), job) for n in range(ranks)])
    spoke, note = found is not None, found or KeeperNote()
    outcome = progress.outcome if progress.outcome_attempt == job.attempt else None
    if outcome is None and rank:
        outcome = last_failure(run.rank(rank), job.attempt)
    began_here = launch is not None and launch.attempt == job.attempt
    restarted = launch is not None and began_here and launch.boot_id != boot_id() and not spoke
    suspected = note.signal in _SUSPECTS
    return WorkerExit(
        outcome=outcome.outcome if outcome else "",
        cause=outcome.cause if outcome else None,
        checkpointed=progress.checkpoint_attempt == job.attempt,
        spoke=observed or spoke or progress.worker_attempt == job.attempt,
        code=note.code,
        signal=note.signal,
        oom_kills=note.oom_kills or 0,
        memory_short=suspected and _was_short(note, job, gather()),
        machine_restarted=restarted,
        panic=panic_report(_begun(run)) if restarted else "",
        log=str(run.rank(rank).log),
        ineffective=ineffective_fallbacks(run),
        rank=rank,
        ranks=ranks,
    )


def _note(run: RunFolder, job: Job) -> KeeperNote | None:
    """Return the note of the job's newest attempt in a run folder; None where there is none."""
    note = documents.read_known(run.exit, KeeperNote)
    return note if note is not None and note.attempt == job.attempt else None


def _begun(run: RunFolder) -> float:
    """Return the start of the newest attempt, seconds since the epoch; 0 where it is unknown."""
    try:
        return run.launch.stat().st_mtime
    except OSError:
        return 0.0


def ineffective_fallbacks(run: RunFolder) -> frozenset[str]:
    """Return the out-of-memory fallbacks that its worker found to save no memory, by their
    settings.
    """
    found = read_object(run.fallbacks)
    return frozenset(name for name, saves in found.items() if name != "format" and not saves)


def _was_short(note: KeeperNote, job: Job, machine: HostFacts) -> bool:
    """Return whether a killed worker probably died of memory, judged by its keeper's note.

    Linux: SIGKILL is no death of memory where the kernel counts its kills and none was counted; an
    allocation that failed is SIGSEGV. macOS: the kernel kills only under pressure; an error of
    Metal is SIGABRT, at the share of the memory that Metal may have, of which the budget is made.
    """
    number = note.signal
    if machine.is_mac and note.pressure >= _PRESSURE_WARNING:
        return True
    if not machine.is_mac and number == signal.SIGKILL and note.oom_kills is not None:
        return False
    enforced = machine.memory_usable
    if machine.is_mac and number == signal.SIGABRT and job.plan is not None:
        enforced = min(enforced, job.plan.memory_budget or enforced)
    return enforced > 0 and note.footprint >= NEAR_THE_LIMIT * enforced

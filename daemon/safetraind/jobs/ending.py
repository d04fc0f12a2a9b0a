"""How a worker ended, put together from its last word, its keeper's note and its launch."""

from __future__ import annotations

from safetrain_shared.paths import RunFolder
from safetraind import host
from safetraind.files.durable import read_json
from safetraind.jobs.moves import End, Job
from safetraind.jobs.progress import Progress
from safetraind.processes.supervisor import boot_id

# A last footprint, up to two seconds old, from this share of what was allowed on looks like a
# death of memory.
NEAR_THE_LIMIT = 0.8


def read_end(run: RunFolder, job: Job, progress: Progress) -> End:
    """The end of the job's newest attempt, whose worker is gone."""
    launch = read_json(run.launch) or {}
    note = read_json(run.exit) or {}
    if note.get("attempt") != job.attempt:
        note = {}
    outcome = progress.outcome if progress.outcome_attempt == job.attempt else None
    restarted = launch.get("attempt") == job.attempt and launch.get("boot_id") != boot_id()
    footprint = max(int(note.get("footprint", 0)), int(note.get("peak_resident", 0)))
    return End(
        outcome=outcome.outcome if outcome else "",
        cause=outcome.cause if outcome else None,
        checkpointed=progress.checkpoint_attempt == job.attempt,
        spoke=bool(note) or progress.worker_attempt == job.attempt,
        code=int(note.get("code", 0)),
        signal=int(note.get("signal", 0)),
        oom_kills=int(note.get("oom_kills", 0)),
        memory_short=footprint >= NEAR_THE_LIMIT * _allowed(job),
        machine_restarted=restarted and not note,
        log=str(run.log),
    )


def _allowed(job: Job) -> int:
    """Bytes that the worker could have: its budget, its control group's, or the machine's."""
    facts = host.gather()
    limits = [facts.memory_limit, facts.memory_total]
    if job.plan is not None:
        limits.append(job.plan.memory_budget)
    return min((limit for limit in limits if limit > 0), default=1 << 62)

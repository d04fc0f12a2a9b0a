"""The run folders of a training's ranks: made before they start, read after they ended."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from safetrain_shared.errors import EXIT_RANK
from safetrain_shared.events import Outcome
from safetrain_shared.paths import RunFolder, private
from safetraind.processes.supervisor import write_launch
from safetraind.scheduler.state import Job
from safetraind.storage import event_file
from safetraind.storage.run_folder import KeeperNote


def ranks_in(run: RunFolder, job: Job) -> int:
    """Return the ranks of a training's newest attempt, some of whose machines may be missing."""
    if not job.machines:
        return job.ranks
    return 1 + sum(run.rank(number).machine.exists() for number in range(1, job.ranks))


def prepare_ranks(run: RunFolder, role: str, attempt: int, ranks: int) -> None:
    """Give each rank of this machine but the first its own run folder, with the job and the plan.

    Raises OSError. What a rank writes there, its events too, is for the daemon only.
    """
    for number in range(1, ranks):
        own = run.rank(number)
        private(own.root, parents=True)
        shutil.copyfile(run.spec, own.spec)
        shutil.copyfile(run.plan, own.plan)
        write_launch(own, role, attempt, event_file.last_seq(own.events))


def end_to_blame(notes: Sequence[KeeperNote | None]) -> tuple[int, KeeperNote | None]:
    """Return the rank whose end ended the others, and its keeper's note, if there is one. Pure.

    Of the notes of all ranks, it is the first one that ended in trouble of its own; else the one
    for which another was ended; else the one without a note, whose keeper was killed as well; else
    the first that lost the connection.
    """
    known = [(note.ended, rank, note) for rank, note in enumerate(notes) if note is not None]
    own = [(ended, rank) for ended, rank, note in known if _by_itself(note)]
    peers = [(ended, note.peer) for ended, _, note in known if note.peer >= 0]
    silent = [(0.0, rank) for rank, note in enumerate(notes) if note is None]
    left = [(ended, rank) for ended, rank, note in known if note.code == EXIT_RANK]
    rank = min(own or peers or silent or left or [(0.0, 0)])[1]
    return rank, notes[rank]


def last_failure(run: RunFolder, attempt: int) -> Outcome | None:
    """Return the failure with which a rank ended an attempt by itself; None without one."""
    for read in event_file.read(run.events):
        body = read.event.body
        if read.event.attempt == attempt and isinstance(body, Outcome) and body.outcome == "failed":
            return body
    return None


def _by_itself(note: KeeperNote) -> bool:
    """Return whether a worker ended in trouble of its own."""
    return note.peer < 0 and (note.signal > 0 or note.code not in (0, EXIT_RANK))

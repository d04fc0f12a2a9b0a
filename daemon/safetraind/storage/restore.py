"""Restores jobs that the database lost: from a daily backup beside it, and from the run folders.

The files of the jobs are the truth: a backup only adds what they do not hold, the idempotency keys
and the order of the queue.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from safetrain_shared.errors import SafetrainError
from safetrain_shared.paths import Home
from safetraind.storage.job_store import JobStore
from safetraind.storage.rebuilt_record import rebuild, run_numbers
from safetraind.storage.run_folder import set_odd_aside

log = logging.getLogger(__name__)
_DAY = 24 * 3600.0
_LOOK_SECONDS = 3600.0
_AGAIN_SECONDS = 60.0  # after an error


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of `restore`. `jobs`: the number of all jobs. `rebuilt`: those taken from run
    folders.

    `backup`: the time at which the backup was written, seconds since the epoch, UTC; 0: none was
    used. `aside`: the path to which the damaged database was moved; empty where it was whole.
    """

    jobs: int
    rebuilt: int
    backup: float = 0.0
    aside: str = ""


class DailyBackup:
    """A copy of the database beside it, renewed once a day."""

    def __init__(self, home: Home) -> None:
        self.path = backup_of(home)
        self._due = 0.0  # of time.monotonic(): the first look tells

    def renew(self, store: JobStore) -> None:
        """Write the copy anew where it is older than a day. A full disk only delays it."""
        if time.monotonic() < self._due:
            return
        try:
            due = time.time() - _written(self.path) >= _DAY
            if due and not store.back_up(self.path):
                return  # there is no job yet
            self._due = time.monotonic() + _LOOK_SECONDS
        except OSError as error:
            self._due = time.monotonic() + _AGAIN_SECONDS
            log.warning("the daily backup could not be written: %s", error)


def backup_of(home: Home) -> Path:
    """Return the path of the daily backup."""
    return home.database.with_name(f"{home.database.name}.daily")


def add_lost(store: JobStore, home: Home, *, every: bool = False) -> int:
    """Add the jobs that have a run folder and that the database has lost. Return their number.

    Lost are all where the database is new, else those with a number that it never gave out. Others
    without a row were removed, unless `every` says that they are to be added as well.
    """
    known = store.ids()
    least = 0 if store.is_new or every else store.highest_id
    lost = [n for n in sorted(run_numbers(home.root / "runs")) if n > least and n not in known]
    return sum(_put(store, home, number) for number in lost)


def restore(home: Home) -> Restored:
    """Repair the database of a home while no daemon serves it.

    A damaged one is moved aside, and replaced by the daily backup where there is one. Jobs known
    from the run folders are added, and take precedence. Raises OSError, NoRoom, and Incompatible
    for a database of a newer version.
    """
    for number in run_numbers(home.root / "runs"):
        set_odd_aside(home.run(number).root)
    try:
        store = JobStore(home.database)
        store.all()
    except SafetrainError as error:
        if error.code not in ("database.damaged", "disk.refused"):
            raise
    else:
        found = add_lost(store, home, every=True)
        jobs = len(store.all())
        store.close()
        return Restored(jobs, found)
    aside = _move_aside(home.database)
    written = _take_backup(home)
    store = JobStore(home.database)
    rows = {record.job.id for record in store.all()}
    for number in rows.difference(run_numbers(home.root / "runs")):
        store.forget(number)  # removed since
    found = sum(_put(store, home, number) for number in run_numbers(home.root / "runs"))
    jobs = len(store.all())
    store.close()
    return Restored(jobs, found, written, str(aside))


def _put(store: JobStore, home: Home, number: int) -> bool:
    record = rebuild(home.run(number), number)
    if record is None:
        return False
    store.put(record)
    log.warning("job %d: rebuilt from its run folder", number)
    return True


def _move_aside(database: Path) -> Path:
    number = 1
    while (aside := database.with_name(f"{database.name}.damaged-{number}")).exists():
        number += 1
    database.rename(aside)
    for end in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            database.with_name(database.name + end).rename(aside.with_name(aside.name + end))
    return aside


def _take_backup(home: Home) -> float:
    """Put the daily backup in the database's place. Return its time, seconds since the epoch, 0
    where there is no whole one.
    """
    backup = backup_of(home)
    try:
        with contextlib.closing(sqlite3.connect(f"file:{backup}?mode=ro", uri=True)) as copy:
            whole = copy.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
    except sqlite3.DatabaseError:
        whole = False
    if not whole:
        return 0.0
    shutil.copyfile(backup, home.database)
    home.database.chmod(0o600)
    return _written(backup)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0

"""The jobs in SQLite: nothing that was accepted is ever lost, and no id is given out twice."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.errors import Damaged, Incompatible, NoRoom
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import FINAL, JobSpec, JobState
from safetrain_shared.paths import Home
from safetraind.scheduler.state import Job
from safetraind.storage import documents
from safetraind.storage.durable import clear
from safetraind.storage.job_document import JobDocument, ModelSource
from safetraind.storage.rebuilt_record import rebuild
from safetraind.storage.record import Record

log = logging.getLogger(__name__)

# Step n brings a database of version n to n + 1. Never change one that was released: add another.
# The column `fruitless` is `attempts_without_progress`, under the name that was released.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT UNIQUE,
        output TEXT NOT NULL,
        document TEXT NOT NULL,
        state TEXT NOT NULL,
        position REAL NOT NULL,
        after INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        intent TEXT NOT NULL,
        fruitless INTEGER NOT NULL,
        cause TEXT,
        created REAL NOT NULL,
        started REAL NOT NULL,
        finished REAL NOT NULL
    ) STRICT;
    CREATE INDEX jobs_by_output ON jobs (output);
    """,
    """
    ALTER TABLE jobs ADD COLUMN digest TEXT;
    ALTER TABLE jobs ADD COLUMN progress TEXT;
    """,
)

SET_ASIDE = "job.unreadable"  # the cause of a job that cannot be understood
MOST_ATTEMPTS = 1_000_000


class JobStore:
    """The database of one home. Every call commits, and a commit outlives a power cut."""

    def __init__(self, path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
        """Open the database, or make it. An older one is brought to the newest version after a
        backup.

        `is_new` is then True where there was no file, or an empty one. Raises Incompatible where a
        newer safetrain wrote it, and Damaged where it can't be trusted; the file is then left as it
        is. Raises NoRoom where the disk refuses.
        """
        self._path = path
        self.is_new = not path.exists() or path.stat().st_size == 0
        try:
            self._connect()
            self._migrate(migrations)
            self._db.execute("BEGIN IMMEDIATE")  # what can be read may still refuse to be written
            self._db.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def back_up(self, path: Path) -> bool:
        """Write a copy of the database to `path`; False where it holds no job. Raises OSError."""
        if not self._db.execute("SELECT 1 FROM jobs LIMIT 1").fetchone():
            return False
        new = path.with_name(f"{path.name}.new")
        try:
            _copy(self._db, new)
        except sqlite3.DatabaseError as error:
            raise OSError(str(error)) from error
        new.replace(path)
        return True

    def rescue(self) -> None:
        """Put the database back at its path, whose file was removed while this held it open.

        Raises OSError, NoRoom.
        """
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            _copy(self._db, new)
            for left in ("-wal", "-shm"):
                self._path.with_name(self._path.name + left).unlink(missing_ok=True)
            new.replace(self._path)
            self._db.close()
            self._connect()
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error

    def add(self, document: JobDocument, output: str, key: str, after: int, now: float) -> Record:
        """Accept a job at the tail of the queue. `document` gets its id. Raises NoRoom."""
        with self._transaction() as db:
            tail = db.execute("SELECT coalesce(max(position), 0) + 1 FROM jobs").fetchone()[0]
            cursor = db.execute(
                "INSERT INTO jobs (key, output, document, state, position, after, attempt, intent,"
                " fruitless, created, started, finished)"
                " VALUES (?, ?, '', 'queued', ?, ?, 0, '', 0, ?, 0, 0)",
                (key or None, output, tail, after, now),
            )
            document = dataclasses.replace(document, job=int(cursor.lastrowid or 0))
            db.execute(
                "UPDATE jobs SET document = ?, digest = ? WHERE id = ?",
                (*_kept(documents.to_json(document)), cursor.lastrowid),
            )
        job = Job(document.job, position=tail, after=after, **_fixed(document.spec))
        return Record(job, document, output, now, 0.0, 0.0)

    def save(self, jobs: Iterable[Job], now: float) -> None:
        """Keep what changed of these jobs, all or none. Raises NoRoom."""
        with self._transaction() as db:
            for job in jobs:
                running = job.state is JobState.RUNNING
                db.execute(
                    "UPDATE jobs SET state = ?, position = ?, after = ?, attempt = ?, intent = ?,"
                    " fruitless = ?, cause = ?,"
                    " started = CASE WHEN ? AND started = 0 THEN ? ELSE started END,"
                    " finished = CASE WHEN ? THEN ? ELSE 0 END WHERE id = ?",
                    (*_moving(job), running, now, job.state in FINAL, now, job.id),
                )

    def revise(self, job_id: int, document: JobDocument, after: int) -> Record:
        """Give a job other options. Raises NoRoom."""
        with self._transaction() as db:
            row = db.execute("SELECT document FROM jobs WHERE id = ?", (job_id,)).fetchone()
            kept = _kept(documents.to_json(document, json.loads(row["document"])))
            db.execute(
                "UPDATE jobs SET document = ?, digest = ?, after = ? WHERE id = ?",
                (*kept, after, job_id),
            )
        return self.get(job_id)

    def put(self, record: Record) -> None:
        """Insert or replace a rebuilt record. Raises NoRoom.

        A row that exists keeps its key and its place in the queue.
        """
        job, (text, digest) = record.job, _kept(documents.to_json(record.document))
        times = (record.created, record.started, record.finished)
        with self._transaction() as db:
            db.execute(
                "INSERT INTO jobs (id, output, document, digest, state, position, after, attempt,"
                " intent, fruitless, cause, created, started, finished)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET document = excluded.document,"
                " digest = excluded.digest, state = excluded.state, attempt = excluded.attempt,"
                " intent = '', fruitless = 0, cause = excluded.cause, progress = NULL,"
                " started = excluded.started, finished = excluded.finished",
                (job.id, record.output, text, digest, *_moving(job), *times),
            )

    def keep_progress(self, progress: Mapping[int, str]) -> None:
        """Keep the progress of jobs that have ended, JSON by id. Raises NoRoom.

        It saves reading their event files.
        """
        with self._transaction() as db:
            values = [(text, job_id) for job_id, text in progress.items()]
            db.executemany("UPDATE jobs SET progress = ? WHERE id = ?", values)

    def progress_of(self, job_id: int) -> str:
        """Return the text given to `keep_progress`; empty where there is none."""
        row = self._db.execute("SELECT progress FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return str(row["progress"] or "") if row else ""

    def forget(self, job_id: int) -> None:
        """Delete a job; its id is not used again."""
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def reserve(self, job_id: int) -> None:
        """Give out no id at or below `id`: runs of a lost database may still lie there."""
        with self._transaction() as db:
            found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
            if found is None:
                db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('jobs', ?)", (job_id,))
            elif found[0] < job_id:
                db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'jobs'", (job_id,))

    @property
    def highest_id(self) -> int:
        """The highest id that was given out or reserved."""
        found = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
        return int(found[0]) if found else 0

    def ids(self) -> set[int]:
        """Return the ids of all jobs. Raises Damaged."""
        try:
            return {row["id"] for row in self._db.execute("SELECT id FROM jobs")}
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error

    def get(self, job_id: int) -> Record:
        """Return the job with this id, which must be there."""
        row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return self._record(row)

    def by_key(self, key: str) -> Record | None:
        """Return the job that was submitted with this idempotency key."""
        row = self._db.execute("SELECT * FROM jobs WHERE key = ?", (key,)).fetchone()
        return self._record(row) if row else None

    def by_output(self, output: str) -> list[Record]:
        """Return the jobs of an output folder (canonical path), the newest first."""
        query = "SELECT * FROM jobs WHERE output = ? ORDER BY id DESC"
        return [self._record(row) for row in self._db.execute(query, (output,))]

    def outputs(self) -> list[str]:
        """Return the output folders of all jobs, those of the newest jobs first."""
        query = "SELECT output FROM jobs GROUP BY output ORDER BY max(id) DESC"
        return [row["output"] for row in self._db.execute(query)]

    def all(self) -> list[Record]:
        """Return the records of all jobs, oldest first. Raises Damaged."""
        try:
            rows = self._db.execute("SELECT * FROM jobs ORDER BY id").fetchall()
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error
        return [self._record(row) for row in rows]

    def _record(self, row: sqlite3.Row) -> Record:
        """Return a row as a record.

        A damaged one is rebuilt from the job's run folder. Where that fails it is set aside: a
        failed job, whose row stays until somebody removes it.
        """
        try:
            return self._understood(row)
        except (Incompatible, ValueError, RecursionError) as error:
            log.warning("job %d: its row cannot be understood: %s", row["id"], error)
            return self._from_its_folder(row, error) or self._set_aside(row, error)

    def _from_its_folder(self, row: sqlite3.Row, error: Exception) -> Record | None:
        if isinstance(error, Incompatible):  # a newer version's, which that version understands
            return None
        document = None
        with contextlib.suppress(Incompatible, ValueError, RecursionError):
            document = self._document(row)
        record = rebuild(Home(self._path.parent).run(row["id"]), row["id"], document)
        if record is None:
            return None
        with contextlib.suppress(NoRoom):
            self.put(record)
            log.warning("job %d: rebuilt from its run folder", row["id"])
        return record

    def _set_aside(self, row: sqlite3.Row, error: Exception) -> Record:
        try:
            document = self._document(row)
        except (Incompatible, ValueError, RecursionError):
            spec = JobSpec(model="", train="", valid="", output=row["output"])
            document = JobDocument(spec, ModelSource(""), {}, job=row["id"])
        cause = Finding(SET_ASIDE, Status.FAILED, True, {"reason": str(error)[:200]})
        job = Job(row["id"], JobState.FAILED, after=0, cause=cause)
        return Record(job, document, row["output"], row["created"], 0.0, 0.0)

    def _document(self, row: sqlite3.Row) -> JobDocument:
        text, digest = row["document"], row["digest"]
        if digest is not None and digest != _digest(text):
            raise ValueError("its checksum is wrong")
        return documents.parse(json.loads(text), JobDocument, str(self._path))

    def _understood(self, row: sqlite3.Row) -> Record:
        document = self._document(row)
        cause = from_plain(json.loads(row["cause"]), Finding) if row["cause"] else None
        if not math.isfinite(row["position"]) or not 0 <= row["attempt"] < MOST_ATTEMPTS:
            raise ValueError(f"position {row['position']}, attempt {row['attempt']}")
        job = Job(
            id=row["id"],
            state=JobState(row["state"]),
            position=row["position"],
            after=row["after"],
            attempt=row["attempt"],
            intent=row["intent"],
            attempts_without_progress=row["fruitless"],
            cause=cause,
            **_fixed(document.spec),
        )
        times = (row["created"], row["started"], row["finished"])
        return Record(job, document, row["output"], *times)

    def _connect(self) -> None:
        with contextlib.suppress(OSError):  # SQLite says what is wrong with it
            self._path.touch(mode=0o600)  # others may be allowed to read in the home
        self._db = sqlite3.connect(self._path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._verify()
        self._configure()

    def _verify(self) -> None:
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise Damaged("database.damaged", path=str(self._path), reason=found)

    def _configure(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA fullfsync = ON")  # macOS: through the drive's cache
        self._db.execute("PRAGMA checkpoint_fullfsync = ON")

    def _migrate(self, migrations: Sequence[str]) -> None:
        found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if found > len(migrations):
            known = len(migrations)
            raise Incompatible("database.newer", path=str(self._path), found=found, known=known)
        if 0 < found < len(migrations):
            self._back_up(found)
        for version, step in enumerate(migrations[found:], start=found + 1):
            self._db.executescript(f"BEGIN; {step} PRAGMA user_version = {version}; COMMIT;")

    def _back_up(self, version: int) -> None:
        _copy(self._db, self._path.with_name(f"{self._path.name}.version-{version}"))

    def _transaction(self) -> _Transaction:
        return _Transaction(self)

    def _is_blocked(self) -> bool:
        """Whether a folder lies in the place of one of the database's files."""
        names = (f"{self._path.name}{end}" for end in ("", "-wal", "-shm"))
        return any(self._path.with_name(name).is_dir() for name in names)

    def _explained(self, error: sqlite3.DatabaseError) -> Exception:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_FULL"):
            return NoRoom("disk.full", path=str(self._path))
        if isinstance(error, sqlite3.OperationalError) and not self._is_blocked():
            return NoRoom("disk.refused", path=str(self._path), reason=str(error))
        return Damaged("database.damaged", path=str(self._path), reason=str(error))


class _Transaction:
    """`with` it: committed at the end, rolled back on an error, SQLite's errors explained."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._store._db.execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError as error:
            raise self._store._explained(error) from error
        return self._store._db

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._store._db.execute("ROLLBACK" if error else "COMMIT")
        except sqlite3.DatabaseError as failure:
            if error is None:
                self._roll_back()
                raise self._store._explained(failure) from failure
        if isinstance(error, sqlite3.DatabaseError):
            raise self._store._explained(error) from error

    def _roll_back(self) -> None:
        if self._store._db.in_transaction:
            self._store._db.execute("ROLLBACK")


def _copy(database: sqlite3.Connection, path: Path) -> None:
    """Write the content of a database into a file of its own, for this user alone."""
    clear(path)
    path.touch(mode=0o600)
    with contextlib.closing(sqlite3.connect(path)) as copy:
        database.backup(copy)


def _fixed(spec: JobSpec) -> dict[str, Any]:
    """Return the scheduler's fields of a job that follow from its specification alone."""
    return {"allow_shorter": spec.allow_shorter, "evaluates": bool(spec.evaluates)}


def _moving(job: Job) -> tuple[Any, ...]:
    cause = _text(to_plain(job.cause)) if job.cause else None
    queue = (job.state.value, job.position, job.after, job.attempt)
    return (*queue, job.intent, job.attempts_without_progress, cause)


def _kept(document: Mapping[str, Any]) -> tuple[str, str]:
    """Return a document as text, and the checksum that is kept beside it."""
    text = _text(document)
    return text, _digest(text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

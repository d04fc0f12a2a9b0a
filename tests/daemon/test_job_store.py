"""The database: what it keeps, what it refuses, and that it wipes nothing."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from safetrain_shared.errors import Damaged, Incompatible
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec, JobState
from safetraind.storage.job_document import JobDocument, ModelSource
from safetraind.storage.job_store import MIGRATIONS, JobStore

DOCUMENT = JobDocument(JobSpec("m", "/t", "/v", "/o"), ModelSource("/m"), {})


def add(store: JobStore, key: str = "", output: str = "/o") -> int:
    return store.add(DOCUMENT, output, key, 0, 1.0).job.id


def test_what_was_accepted_is_there_after_opening_it_again(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.db")
    job = store.get(add(store, "key")).job
    cause = Finding("job.worker_killed", args={"signal": 9})
    failed = dataclasses.replace(job, state=JobState.FAILED, attempt=2, cause=cause)
    store.save([failed], 5.0)
    store.close()
    record = JobStore(tmp_path / "jobs.db").by_key("key")
    assert record is not None
    assert record.job == failed
    assert (record.created, record.started, record.finished) == (1.0, 0.0, 5.0)
    assert record.document.job == job.id


def test_ids_are_never_given_out_twice(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.db")
    first = add(store)
    store.forget(first)
    assert add(store) == first + 1
    store.reserve(41)
    assert add(store) == 42


def test_an_older_database_is_backed_up_and_brought_forward(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    old = JobStore(path)
    job_id = add(old)
    old.close()
    newer = (*MIGRATIONS, "ALTER TABLE jobs ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue';")
    store = JobStore(path, newer)
    assert store.get(job_id).output == "/o"
    store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(newer)
        assert db.execute("SELECT colour FROM jobs").fetchone()[0] == "blue"
    with sqlite3.connect(tmp_path / f"jobs.db.version-{len(MIGRATIONS)}") as backup:
        assert backup.execute("SELECT count(*) FROM jobs").fetchone()[0] == 1
        assert backup.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)


def test_a_newer_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    JobStore(path, (*MIGRATIONS, "CREATE TABLE later (x);")).close()
    before = path.read_bytes()
    with pytest.raises(Incompatible) as caught:
        JobStore(path)
    assert caught.value.code == "database.newer"
    assert path.read_bytes() == before


@pytest.mark.parametrize("harm", ["text", "hole"])
def test_a_damaged_database_is_refused_and_left_as_it_is(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "jobs.db"
    store = JobStore(path)
    for _ in range(200):
        add(store)
    store.close()
    data = bytearray(path.read_bytes())
    if harm == "text":
        data = bytearray(b"this is no database at all" * 100)
    else:
        data[4096:12288] = b"\x7f" * 8192
    path.write_bytes(data)
    with pytest.raises(Damaged) as caught:
        JobStore(path)
    assert caught.value.code == "database.damaged"
    assert path.read_bytes() == bytes(data)


def test_a_failed_save_keeps_nothing_of_it(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.db")
    one, two = (store.get(add(store)).job for _ in range(2))
    bad = dataclasses.replace(two, position="not a number")  # type: ignore[arg-type]
    with pytest.raises(Damaged):
        store.save([dataclasses.replace(one, attempt=7), bad], 2.0)
    assert store.get(one.id).job.attempt == 0

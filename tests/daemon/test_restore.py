"""A database that is lost, damaged or older than the files: the jobs come back from those."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from safetrain_shared.jobs import JobState
from safetrain_shared.paths import Home
from safetraind.storage.job_store import JobStore
from tests.daemon.conftest import MakeSpec
from tests.daemon.test_faults import command
from tests.daemon.test_set_aside import all_end, judge, killed, place
from tests.harness import DaemonProcess

__all__ = ["killed", "place"]
DATABASE = ("jobs.db", "jobs.db-wal", "jobs.db-shm")


def lose(home: Path) -> None:
    for name in DATABASE:
        (home / name).unlink(missing_ok=True)


def empty(home: Path) -> None:
    lose(home)
    (home / "jobs.db").touch()


def lose_its_end(home: Path) -> None:
    """As where the log that it writes ahead is cut: back to the state of long before."""
    with sqlite3.connect(home / "jobs.db") as db:
        db.execute("DELETE FROM jobs WHERE id = 4")
        db.execute("UPDATE sqlite_sequence SET seq = 3")
        db.execute("UPDATE jobs SET state = 'queued', attempt = 0, progress = NULL WHERE id < 4")
    db.close()


@pytest.mark.parametrize("damage", [lose, empty, lose_its_end])
def test_a_database_that_lost_its_jobs_has_them_again_from_their_folders(
    killed: DaemonProcess, damage: Callable[[Path], None]
) -> None:
    damage(killed.home.root)
    jobs = all_end(killed)
    judge(jobs)
    attempts = [job.attempt for job in jobs.values()]
    assert attempts[:2] == [1, 1] and max(attempts) <= 2, "nothing that had ended began anew"
    assert jobs[2].spec.output == str(killed.home.root.parent / "two") and jobs[2].finished > 0


def test_a_damaged_database_names_the_command_that_brings_it_back(
    killed: DaemonProcess, make_spec: MakeSpec
) -> None:
    home = killed.home
    store = JobStore(home.database)
    store.back_up(home.database.with_name("jobs.db.daily"))  # before jobs 2 and 4 were removed
    store.forget(2)
    store.close()
    shutil.rmtree(home.run(2).root)
    flip_pages(home)
    refused = command(killed, "run")
    assert refused.returncode == 72 and "safetraind restore" in refused.stderr
    done = command(killed, "restore", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["jobs"], told["rebuilt"]) == (3, 3) and told["backup"] > 0
    assert Path(told["aside"]).exists()
    jobs = all_end(killed)
    assert sorted(jobs) == [1, 3, 4], "what was removed since the backup stays removed"
    assert command(killed, "restore").returncode == 75, "not under a living daemon"
    again = killed.submit(make_spec("five", name="pace=0", num_epochs=1)).job.id
    assert again == 5 and killed.wait_for_state(again) is JobState.SUCCEEDED


def flip_pages(home: Home) -> None:
    """Make every page but the first unreadable, after the log is in the file itself."""
    with sqlite3.connect(home.database) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    size = home.database.stat().st_size
    with home.database.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


def test_a_document_that_one_flipped_bit_made_another_is_taken_from_the_run_folder(
    killed: DaemonProcess,
) -> None:
    with sqlite3.connect(killed.home.database) as db:
        old = db.execute("SELECT document FROM jobs WHERE id = 4").fetchone()[0]
        db.execute("UPDATE jobs SET document = ? WHERE id = 4", (old.replace("pace=0", "pace=9"),))
    db.close()
    jobs = all_end(killed)
    judge(jobs)
    assert jobs[4].spec.name == "pace=0"


def test_a_spec_that_reads_well_and_says_something_else_is_put_back_before_the_training(
    killed: DaemonProcess,
) -> None:
    spec = killed.home.run(4).spec
    spec.write_text(spec.read_text().replace("pace=0", "die=1,"))
    judge(all_end(killed))
    assert json.loads(spec.read_text())["spec"]["name"] == "pace=0"


def test_a_plan_that_was_cut_is_taken_from_the_events(killed: DaemonProcess) -> None:
    plan = killed.home.run(3).plan
    whole = json.loads(plan.read_text())
    plan.write_bytes(plan.read_bytes()[:40])
    judge(all_end(killed))
    assert json.loads(plan.read_text()) == whole


def test_the_backup_is_written_once_a_day_and_not_of_an_empty_database(
    killed: DaemonProcess,
) -> None:
    backup = killed.home.root / "jobs.db.daily"
    assert backup.exists(), "the first day's"
    with sqlite3.connect(backup) as db:
        assert db.execute("SELECT count(*) FROM jobs").fetchone()[0] >= 1
    db.close()
    written = backup.stat().st_mtime_ns
    all_end(killed)
    assert backup.stat().st_mtime_ns == written


def test_how_far_an_ended_job_came_is_read_from_the_database_unless_its_events_grew(
    killed: DaemonProcess,
) -> None:
    before = all_end(killed)
    killed.terminate()
    with sqlite3.connect(killed.home.database) as db:
        kept = db.execute("SELECT count(*) FROM jobs WHERE progress IS NOT NULL").fetchone()[0]
    db.close()
    assert kept == 4
    with killed.home.run(1).events.open("ab") as events:
        events.write(b"a line that is none\n")
    after = all_end(killed)
    assert [(j.step, j.last_seq, j.valid_loss) for j in after.values()] == [
        (j.step, j.last_seq, j.valid_loss) for j in before.values()
    ]

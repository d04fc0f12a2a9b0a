"""Files and rows that cannot be understood: one job is set aside, and all others run."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.jobs import FINAL, JobState
from tests.daemon.conftest import PLAY, MakeSpec, spec_maker
from tests.daemon.fakes import let_go
from tests.harness import DaemonProcess, wait_for

DEEP = "[" * 200_000 + "]" * 200_000
CONTENTS = {
    "a list": "[1, 2]",
    "a string": '"olá"',
    "deep": DEEP,
    "huge": '{"attempt": ' + "9" * 3_000 + ', "seq_floor": 1e400}',
    "cut": '{"format": 1, "spec": {"mod',
    "empty": "",
    "a folder": None,
}
FILES = ("plan.json", "rungs.json", "launch.json", "exit.json", "spec.json", "told", "events.log")
ROWS = {
    "document no JSON": ("document", "{"),
    "document a list": ("document", "[]"),
    "document deep": ("document", DEEP),
    "document without spec": ("document", '{"format": 1}'),
    "document newer": ("document", '{"format": 99}'),
    "document spec a list": ("document", '{"format": 1, "spec": [], "model": 3}'),
    "state unknown": ("state", "flying"),
    "cause garbage": ("cause", "}"),
    "cause a list": ("cause", "[[]]"),
    "cause unknown": ("cause", '{"code": "no.such", "status": "purple", "args": {"a": [1]}}'),
    "attempt huge": ("attempt", 2**62),
    "attempt negative": ("attempt", -1),
    "position infinite": ("position", float("inf")),
    "after itself": ("after", 3),
    "intent unknown": ("intent", "dance"),
    "created infinite": ("created", float("inf")),
    "key with escape": ("key", "\x1b[31m"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def killed(place: Path) -> Iterator[DaemonProcess]:
    """Two jobs that have ended, one in training and one that waits; the daemon is dead.

    They are made for the first test and put back, to the same paths, for each of the others.
    """
    folder, made = place / "folder", place / "made"
    shutil.rmtree(folder, ignore_errors=True)
    daemon = DaemonProcess(folder / "home", PLAY)
    try:
        if made.exists():
            shutil.copytree(made, folder)
        else:
            folder.mkdir()
            play_and_kill(daemon, spec_maker(folder))
            shutil.copytree(folder, made, ignore=sockets)
        yield daemon
    finally:
        daemon.end()


def sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket()]


def play_and_kill(playing: DaemonProcess, make_spec: MakeSpec) -> None:
    playing.start()
    for name in ("one", "two"):
        job = playing.submit(make_spec(name, name="pace=0", num_epochs=1)).job
        playing.wait_for_state(job.id)
    spec = make_spec("three", name="pace=0.01,hold=4", num_epochs=1)
    third = playing.submit(spec).job.id
    playing.submit(make_spec("four", name="pace=0", num_epochs=1))
    wait_for(lambda: playing.job(third).step == 4)
    keepers, workers = playing.keepers(), playing.workers()
    playing.kill()
    for process in [*keepers, *workers]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it went with its keeper
            process.kill()
    wait_for(lambda: not playing.processes())
    let_go(spec.output)


def put(path: Path, content: str | None) -> None:
    """Puts `content` in the place of a file; None: a folder with a file in it."""
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
        (path / "inside").touch()
    else:
        path.write_text(content)


def all_end(daemon: DaemonProcess) -> dict[int, jobs_pb2.Job]:
    """Starts it; every job by its id once all have ended, each asked for in a call for all."""

    def ended() -> dict[int, jobs_pb2.Job]:
        jobs = daemon.jobs.List(jobs_pb2.ListJobsRequest(), timeout=10).jobs
        by_id = {job.id: job for job in jobs}
        final = all(state_of(job) in FINAL for job in jobs)
        return by_id if final else {}

    daemon.start()
    return wait_for(ended, 60, "every job has ended")


def state_of(job: jobs_pb2.Job) -> JobState:
    return JobState(jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower())


def judge(jobs: dict[int, jobs_pb2.Job], *aside: int) -> None:
    """All but `aside` have succeeded; those have too, or say what is wrong."""
    assert sorted(jobs) == [1, 2, 3, 4]
    for job in jobs.values():
        if job.id not in aside:
            assert state_of(job) is JobState.SUCCEEDED, (job.id, job.cause.text)
        elif state_of(job) is not JobState.SUCCEEDED:
            assert job.cause.code and job.cause.text, job.id


def run(daemon: DaemonProcess, damage: Callable[[Path], None], *aside: int) -> None:
    damage(daemon.home.root)
    judge(all_end(daemon), *aside)
    assert "a task broke" not in daemon.said()


def test_a_job_with_events_of_a_newer_version_is_set_aside_and_told(killed: DaemonProcess) -> None:
    path = killed.home.run(2).events
    data = b'{"seq":0,"attempt":0,"time":1.0,"kind":"format","format":99}'
    path.write_bytes(b"%08x %s\n" % (zlib.crc32(data), data) + path.read_bytes())
    before = path.read_bytes()
    jobs = all_end(killed)
    assert [jobs[n].state for n in (1, 3, 4)] == [jobs_pb2.JOB_STATE_SUCCEEDED] * 3
    assert (jobs[2].cause.code, path.read_bytes()) == ("file.newer", before)
    with pytest.raises(grpc.RpcError) as refused:
        list(killed.watch(2))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]
    assert "events.log" in str(refused.value.details())  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", CONTENTS)
def test_no_file_of_a_job_keeps_the_others_from_running(killed: DaemonProcess, kind: str) -> None:
    """Each file of the ended job 2 and of the interrupted job 3 at once: the worst of both."""

    def damage(home: Path) -> None:
        for file in FILES:
            put(home / "runs" / "2" / file, CONTENTS[kind])
            put(home / "runs" / "3" / file, CONTENTS[kind])

    run(killed, damage, 2, 3)


@pytest.mark.parametrize("file", FILES)
def test_one_file_of_a_job_that_is_a_folder_or_deep(killed: DaemonProcess, file: str) -> None:
    def damage(home: Path) -> None:
        put(home / "runs" / "2" / file, DEEP)
        put(home / "runs" / "3" / file, None)

    run(killed, damage, 2, 3)


def test_rows_that_cannot_be_understood_are_set_aside(
    killed: DaemonProcess, tmp_path: Path
) -> None:
    """Each damage of a row on a copy of job 1's, all in one database."""

    def damage(home: Path) -> None:
        with sqlite3.connect(home / "jobs.db") as db:
            db.row_factory = sqlite3.Row
            row = dict(db.execute("SELECT * FROM jobs WHERE id = 3").fetchone())
            for number, (column, value) in enumerate(ROWS.values(), start=10):
                copy = row | {"id": number, "key": None, "output": str(tmp_path / f"o{number}")}
                copy |= {"state": "queued", column: value}
                names = ", ".join(copy)
                marks = ", ".join("?" * len(copy))
                db.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", tuple(copy.values()))
        db.close()

    damage(killed.home.root)
    jobs = all_end(killed)
    judge({n: jobs[n] for n in (1, 2, 3, 4)})
    assert len(jobs) == 4 + len(ROWS)
    by_kind = dict(zip(ROWS, range(10, 10 + len(ROWS)), strict=True))
    for kind, number in by_kind.items():
        if kind.startswith(("document", "state", "attempt", "position infinite")):
            assert jobs[number].cause.code == "job.unreadable", kind
            assert "set aside" in jobs[number].cause.text


def test_stray_files_in_runs_are_left_alone(killed: DaemonProcess) -> None:
    strange = ("²", "notes.txt", "9" * 23, "0", "-1", "٣", "x-1-2", " 7", "1e3", ".DS_Store")

    def damage(home: Path) -> None:
        for name in strange:
            (home / "runs" / name).mkdir()
            (home / "runs" / f"{name}.txt").write_text("mine")
        (home / "runs" / "5").write_text("a file where the next job's folder would be")

    run(killed, damage)
    for name in strange:
        assert (killed.home.root / "runs" / name).is_dir()
        assert (killed.home.root / "runs" / f"{name}.txt").read_text() == "mine"


def test_a_spec_that_was_cut_is_put_back_from_the_database(killed: DaemonProcess) -> None:
    spec = killed.home.run(3).spec
    spec.write_bytes(spec.read_bytes()[:40])
    judge(all_end(killed))
    assert json.loads(spec.read_text())["spec"]["name"] == "pace=0.01,hold=4"


def test_a_list_leaves_out_the_oldest_that_have_ended(killed: DaemonProcess) -> None:
    all_end(killed)
    short = killed.jobs.List(jobs_pb2.ListJobsRequest(ended_limit=3), timeout=10)
    assert ([job.id for job in short.jobs], short.left_out) == ([2, 3, 4], 1)
    whole = killed.jobs.List(jobs_pb2.ListJobsRequest(), timeout=10)
    assert ([job.id for job in whole.jobs], whole.left_out) == ([1, 2, 3, 4], 0)
    paged = killed.jobs.List(jobs_pb2.ListJobsRequest(page_size=3), timeout=10)
    rest = jobs_pb2.ListJobsRequest(page_size=3, page_token=paged.next_page_token)
    last = killed.jobs.List(rest, timeout=10)
    assert [job.id for job in (*paged.jobs, *last.jobs)] == [1, 2, 3, 4]
    assert len(last.jobs) == 1 and not last.next_page_token
    with pytest.raises(grpc.RpcError) as refused:
        killed.jobs.List(jobs_pb2.ListJobsRequest(page_size=3, page_token="?"), timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]

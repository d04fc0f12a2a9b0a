"""A home that loses its socket, its lock, its database or all of it under a living daemon."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
import pytest

from safetrain_shared.errors import NotFound
from safetrain_shared.events import StepDone
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import Home
from tests.daemon.conftest import MakeSpec
from tests.daemon.fakes import let_go
from tests.daemon.test_faults import command, error_of
from tests.harness import DaemonProcess, wait_for


def test_a_socket_file_that_is_removed_is_there_again_and_no_second_daemon_starts(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    playing.start()
    pid = playing.info().pid
    job = playing.submit(make_spec(name="hold=3", num_epochs=1)).job.id
    for _ in range(2):
        playing.home.socket.unlink()
        refused = command(playing, "start")
        assert refused.returncode == 75, "it serves, if out of reach for a moment"
        wait_for(playing.home.socket.exists)
        playing._close_channel()  # a client of before goes on by its connection; a new one comes
        assert playing.info().pid == pid
    let_go(tmp_path / "out")
    playing.wait_for_state(job, JobState.SUCCEEDED)
    assert [p.pid for p in playing.processes() if "keeper.py" not in str(p.cmdline())] == [pid]
    assert playing.terminate() == 0
    assert not playing.home.socket.exists()


def test_a_lock_file_that_is_removed_still_keeps_a_second_daemon_away(
    playing: DaemonProcess,
) -> None:
    playing.start()
    pid = playing.info().pid
    playing.home.lock.unlink()
    wait_for(playing.home.lock.exists)
    assert command(playing, "start").returncode == 75
    assert playing.info().pid == pid


def test_a_database_file_that_is_removed_is_put_back_with_all_that_it_held(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    playing.start()
    first = playing.submit(make_spec("one", name="pace=0", num_epochs=1)).job.id
    playing.wait_for_state(first, JobState.SUCCEEDED)
    for name in ("jobs.db", "jobs.db-wal", "jobs.db-shm"):
        (playing.home.root / name).unlink(missing_ok=True)
    wait_for(playing.home.database.exists)
    second = playing.submit(make_spec("two", name="pace=0", num_epochs=1)).job.id
    playing.wait_for_state(second, JobState.SUCCEEDED)
    playing.kill()
    playing.start()
    assert [playing.state(job) for job in (first, second)] == [JobState.SUCCEEDED] * 2


def test_a_home_that_is_deleted_ends_daemon_and_training_with_a_sentence(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    playing.start()
    job = playing.submit(make_spec(name="pace=0.02", num_epochs=900)).job.id
    wait_for(lambda: playing.job(job).step > 3)
    watching = playing.watch(job, follow=True)
    next(watching)
    while playing.home.root.exists():  # files are written while it is deleted
        shutil.rmtree(playing.home.root, ignore_errors=True)
    with pytest.raises(grpc.RpcError) as caught:
        list(watching)
    error = error_of(caught)
    assert isinstance(error, NotFound) and error.code == "home.gone"
    assert playing.process is not None and playing.process.wait(60) == NotFound.exit_code
    assert "was deleted while safetraind served it" in playing.said()
    assert not playing.processes(), "nothing trains unseen"
    assert not playing.home.root.exists(), "and nothing has made it again"
    assert (tmp_path / "out" / "checkpoint.json").exists()


def test_a_deleted_home_and_a_new_daemon_never_train_one_folder_at_once(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    playing.start()
    spec = make_spec(name="hold=3", num_epochs=1)
    playing.submit(spec)
    wait_for(lambda: playing.job(1).step == 3)
    old = {process.pid for process in playing.workers()}
    playing.home.root.rename(tmp_path / "elsewhere")
    again = DaemonProcess(playing.home.root, playing._command)
    try:
        again.start()
        job = again.submit(spec).job.id
        again.wait_for_state(job, JobState.SUCCEEDED)
        assert not {p.pid for p in again.workers()} & old, "the old training had ended before"
        steps = [e.body.step for e in again.watch(job) if isinstance(e.body, StepDone)]
        assert steps == list(range(4, 11)), "it went on from the checkpoint of the old one"
    finally:
        again.end()


def test_a_daemon_whose_current_folder_is_gone_trains_all_the_same(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    playing.start()
    shutil.rmtree(here)
    job = playing.submit(make_spec(name="pace=0", num_epochs=1)).job.id
    playing.wait_for_state(job, JobState.SUCCEEDED)
    refused = command(playing, "status")
    assert refused.returncode == 0 and Home(playing.home.root).root.exists()

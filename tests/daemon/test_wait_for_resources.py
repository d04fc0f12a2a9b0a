"""What runs out: descriptors, room on the disk, bytes of a socket's path."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.errors import NoRoom
from safetrain_shared.events import StateChanged
from safetrain_shared.jobs import JobState
from tests.daemon.conftest import PLAY, MakeSpec
from tests.daemon.fakes import let_go
from tests.daemon.test_faults import error_of
from tests.harness import DaemonProcess, kill_all, wait_for


def test_used_up_descriptors_delay_but_do_not_kill(daemon: DaemonProcess) -> None:
    assert daemon.process is not None
    process = psutil.Process(daemon.process.pid)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 10, hard))
    links = []
    for _ in range(40):
        sink = socket.socket(socket.AF_UNIX)
        sink.connect(str(daemon.home.socket))
        links.append(sink)
    for sink in links:
        sink.close()
    process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
    wait_for(lambda: daemon.info(timeout=30).pid == process.pid)


@contextlib.contextmanager
def no_descriptors(daemon: DaemonProcess) -> Iterator[None]:
    """The daemon can open nothing meanwhile."""
    assert daemon.process is not None
    process = psutil.Process(daemon.process.pid)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))


def told(daemon: DaemonProcess, text: str) -> int:
    """How often the daemon's log has said it."""
    return daemon.home.log.read_text().count(text)


def test_a_training_that_ends_while_descriptors_are_used_up_has_succeeded_and_the_next_begins(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    first = playing.start().submit(make_spec("one", name="hold=3")).job.id
    second = playing.submit(make_spec("two", num_epochs=1)).job.id
    wait_for(lambda: playing.job(first).step == 3)
    (keeper,) = playing.keepers()
    with no_descriptors(playing):
        let_go(tmp_path / "one")
        keeper.wait(60)
        wait_for(lambda: told(playing, "Too many open files"), what="it has met the lack")
    playing.wait_for_state(first, JobState.SUCCEEDED)
    assert playing.job(first).attempt == 1
    playing.wait_for_state(second, JobState.SUCCEEDED)


def test_a_lease_that_could_not_be_asked_for_is_asked_for_again(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    running = playing.start().submit(make_spec("one", name="pace=0.1", num_epochs=100)).job.id
    waiting = playing.submit(make_spec("two", num_epochs=1)).job.id
    for job_id in (waiting, running):
        playing.jobs.Pause(jobs_pb2.JobRequest(id=job_id))
        playing.wait_for_state(job_id, JobState.PAUSED)
    with no_descriptors(playing):
        playing.jobs.Resume(jobs_pb2.JobRequest(id=waiting))
        wait_for(lambda: told(playing, "the lease cannot be asked for"))
    playing.wait_for_state(waiting, JobState.SUCCEEDED)


@pytest.mark.parametrize("length", [88, 91])
def test_a_home_in_which_only_the_daemons_socket_has_room_trains(
    length: int, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """The worker's socket then lies in a folder of its own, which may be gone."""
    runtime = Path(tempfile.mkdtemp(prefix="st"))
    runtime.rmdir()
    short = Path(tempfile.mkdtemp(prefix="st"))
    home = short / ("h" * (length - len(str(short)) - 1))
    daemon = DaemonProcess(home, PLAY, {"PLAY_RUNTIME": str(runtime)})
    try:
        daemon.start()
        assert daemon.home.socket.parent == home
        for output in ("one", "two"):
            job = daemon.submit(make_spec(output, name="listen=1", num_epochs=1)).job.id
            daemon.wait_for_state(job, JobState.SUCCEEDED)
            place = Path((tmp_path / output / "socket").read_text())
            assert place.parent == runtime
            assert runtime.stat().st_mode & 0o777 == 0o700
            place.unlink()
            runtime.rmdir()  # as a cleaner of /tmp does
    finally:
        daemon.end()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes, mounted; skipped where we may not mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path) -> Path:
    """Leaves not a byte on the disk of `folder`; returns the file to delete."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return path


def test_a_full_disk_is_said_and_with_room_everything_goes_on(
    small_disk: Path, make_spec: MakeSpec, tmp_path: Path
) -> None:
    playing = DaemonProcess(small_disk / "home", PLAY)
    try:
        playing.start()
        first = playing.submit(make_spec("one", num_epochs=1)).job
        playing.wait_for_state(first.id, JobState.SUCCEEDED)
        running = playing.submit(make_spec("two", name="hold=3")).job
        wait_for(lambda: playing.job(running.id).step == 3)
        filler = fill(small_disk)
        let_go(tmp_path / "two")
        with pytest.raises(grpc.RpcError) as caught:
            playing.submit(make_spec("three"))
        assert isinstance(error_of(caught), NoRoom)
        assert playing.info().pid, "it serves on"
        wait_for(lambda: not playing.workers(), 60, "the worker has left")
        assert playing.state(first.id) is JobState.SUCCEEDED
        filler.unlink()
        playing.wait_for_state(running.id, JobState.SUCCEEDED, seconds=60)
        later = playing.submit(make_spec("three")).job
        playing.wait_for_state(later.id, JobState.SUCCEEDED)
    finally:
        playing.end()


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Not a byte is left on the disk of `folder` meanwhile."""
    filler = fill(folder)
    try:
        yield
    finally:
        filler.unlink()


def test_a_daemon_starts_on_a_full_disk_and_tells_later_how_a_training_ended(
    small_disk: Path, make_spec: MakeSpec, tmp_path: Path
) -> None:
    playing = DaemonProcess(small_disk / "home", PLAY)
    try:
        job = playing.start().submit(make_spec(name="hold=7")).job.id
        wait_for(lambda: playing.job(job).step == 7)
        playing.kill()
        kill_all([*playing.keepers(), *playing.workers()])
        with full(small_disk):
            playing.start()
            # What it became is saved where the room reserved for exit.json is enough, else later.
            assert playing.state(job) in (JobState.RUNNING, JobState.INTERRUPTED)
            assert not playing.workers()
        let_go(tmp_path / "out")
        playing.wait_for_state(job, JobState.SUCCEEDED)
    finally:
        playing.end()


def test_a_daemon_starts_on_a_full_disk_though_a_state_is_still_to_be_told(
    small_disk: Path, make_spec: MakeSpec
) -> None:
    playing = DaemonProcess(small_disk / "home", PLAY)
    try:
        job = playing.start().submit(make_spec(num_epochs=1)).job.id
        playing.wait_for_state(job, JobState.SUCCEEDED)
        playing.kill()
        file = playing.home.run(job).events
        untold = file.read_bytes().rstrip(b"\n").rpartition(b"\n")[0] + b"\n"
        file.write_bytes(untold + b"x" * (-len(untold) % 4096 - 1) + b"\n")  # no room in its page
        with full(small_disk):
            playing.start()
            assert playing.state(job) is JobState.SUCCEEDED
        wait_for(lambda: states(playing, job)[-1] is JobState.SUCCEEDED)
    finally:
        playing.end()


def states(daemon: DaemonProcess, job_id: int) -> list[JobState]:
    """The states that the job's story tells."""
    events = daemon.watch(job_id)
    return [event.body.state for event in events if isinstance(event.body, StateChanged)]


def test_a_disk_that_can_only_be_read_delays_and_loses_nothing(
    home: Path, playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Mounted over the home of a running daemon, as a disk does that goes read-only after a fault:
    what is open stays, nothing new can be opened for writing.
    """
    running = playing.start().submit(make_spec("one", name="hold=3")).job.id
    wait_for(lambda: playing.job(running).step == 3)
    with read_only(home):
        let_go(tmp_path / "one")
        waiting = playing.submit(make_spec("two", num_epochs=1)).job.id
        assert playing.info().pid
        assert playing.state(waiting) is JobState.QUEUED
        wait_for(lambda: told(playing, "Read-only file system"))
    for job_id in (running, waiting):
        playing.wait_for_state(job_id, JobState.SUCCEEDED, seconds=90)
        assert states(playing, job_id)[-1] is JobState.SUCCEEDED


def test_a_home_on_a_disk_that_can_only_be_read_is_refused_with_a_sentence(home: Path) -> None:
    home.mkdir()
    with read_only(home):
        done = subprocess.run(
            [*DaemonProcess(home)._command],
            env=DaemonProcess(home).environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 77
    assert done.stderr.startswith(f"safetraind: {home} cannot be written")
    assert done.stderr.count("\n") == 1


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A mount over `folder` that shows the same and refuses writes; skips where none is allowed."""
    bind = ["mount", "--bind", str(folder), str(folder)]
    if subprocess.run(bind, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)

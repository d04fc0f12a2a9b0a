"""`safetraind` at the terminal: upgrades, foreign pids, a client without the daemon's part."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from safetrain_shared.jobs import JobState
from safetrain_shared.paths import Home
from tests.daemon.conftest import MakeSpec
from tests.daemon.fakes import let_go
from tests.daemon.test_accidents import Watcher, read_result, result_of
from tests.daemon.test_faults import command
from tests.harness import DaemonProcess, wait_for


def test_a_restart_under_a_running_training_loses_nothing(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """As after an upgrade: another program serves from then on, and adopts what is at work."""
    job = playing.start().submit(make_spec(name="hold=3", num_epochs=6)).job.id
    watcher = Watcher(playing, job)
    wait_for(lambda: playing.job(job).step == 3)
    (worker,) = playing.workers()
    old = playing.info().pid
    assert command(playing, "restart").returncode == 0
    after = DaemonProcess(playing.home.root)

    def is_reached() -> bool:  # gRPC tries again after a pause
        with contextlib.suppress(grpc.RpcError):
            return after.info(timeout=1).pid != old
        return False

    wait_for(is_reached)
    assert [w.pid for w in after.workers()] == [worker.pid]
    assert after.state(job) is JobState.RUNNING
    let_go(tmp_path / "out")
    after.wait_for_state(job, JobState.SUCCEEDED)
    watcher.join(60)
    assert after.job(job).attempt == 1
    told = [event.seq for event in after.watch(job)]
    assert told == list(range(1, len(told) + 1))
    assert watcher.watermark == told
    assert read_result(tmp_path / "out") == result_of(60)


def test_a_pid_that_another_program_has_now_is_left_alone(home: Path) -> None:
    home.mkdir(mode=0o700)
    daemon, other = DaemonProcess(home), subprocess.Popen(["sleep", "100"])
    try:
        Home(home).lock.write_text(str(other.pid))
        assert command(daemon, "status").returncode == 69
        assert command(daemon, "stop").returncode == 69
        assert command(daemon, "start").returncode == 0
        assert command(daemon, "stop").returncode == 0
        assert other.poll() is None
    finally:
        daemon.end()
        other.kill()
        other.wait()


def test_nothing_is_sent_to_what_lies_in_the_place_of_the_socket(daemon: DaemonProcess) -> None:
    daemon.home.socket.chmod(0o666)
    for verb in ("status", "stop"):
        refused = command(daemon, verb)
        assert refused.returncode == 77
        assert f"{daemon.home.socket} is no socket that only you can open" in refused.stderr
    daemon.home.socket.chmod(0o600)
    assert command(daemon, "status").returncode == 0


@pytest.mark.parametrize("verb", ["run", "start"])
def test_the_client_alone_says_what_to_install(home: Path, verb: str) -> None:
    """Without the extra `daemon`, psutil is not there."""
    without = home.parent / "without"
    without.mkdir()
    (without / "sitecustomize.py").write_text("import sys; sys.modules['psutil'] = None\n")
    daemon = DaemonProcess(home, env={"PYTHONPATH": str(without)})
    refused = command(daemon, verb)
    assert refused.returncode == 69
    assert refused.stderr.count("\n") == 1
    assert "pip install 'safetrain[daemon]'" in refused.stderr
    assert sys.executable not in refused.stderr

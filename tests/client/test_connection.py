"""Finding the daemon: refusals, autostart, restarts, and sockets that are not to be trusted."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from safetrain import autostart
from safetrain.cli import main
from safetrain.connection import Daemon
from safetrain.follower import Follower
from safetrain_proto.v1.jobs_pb2 import ListJobsRequest
from safetrain_shared.errors import NotAllowed, Unreachable
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import Home
from tests.client.builders import event, job, step
from tests.client.fake import FakeDaemon
from tests.harness import DaemonProcess

Capture = pytest.CaptureFixture[str]


def test_no_autostart_refuses_and_says_how_to_start(home: Home, capsys: Capture) -> None:
    assert main(["jobs", "--no-autostart"]) == 69
    assert str(home.socket) in capsys.readouterr().err
    assert not home.root.exists()


def test_the_light_client_says_what_to_install(
    home: Home, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autostart, "_NEEDS", ("safetrain_has_no_such_part",))
    assert main(["jobs"]) == 69
    assert "pip install 'safetrain[daemon]'" in capsys.readouterr().err


def test_a_daemon_is_started_where_none_runs_and_that_is_said(
    home: Home, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeDaemon(home)
    monkeypatch.setattr(autostart, "start", lambda home: fake.start())
    assert main(["jobs"]) == 0
    assert capsys.readouterr().err == "Starting safetraind …\n"
    fake.stop()


def test_a_start_that_is_refused_keeps_the_daemons_sentence_and_code(
    home: Home, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'safetraind: The home is made of cheese.' >&2\nexit 77\n")
    python.chmod(0o755)
    monkeypatch.setattr(autostart.sys, "executable", str(python))
    assert main(["jobs"]) == 77
    said = "Starting safetraind …\nsafetrain: The home is made of cheese.\n"
    assert capsys.readouterr().err == said


def test_a_socket_left_by_a_dead_daemon_is_no_daemon(home: Home, capsys: Capture) -> None:
    fake = FakeDaemon(home)
    fake.start()
    os.link(home.socket, home.root / "kept")
    fake.stop()
    (home.root / "kept").replace(home.socket)
    assert main(["jobs", "--no-autostart"]) == 69


def test_a_home_that_is_a_file_is_refused(home: Home, capsys: Capture) -> None:
    home.root.write_text("not a folder")
    with pytest.raises(NotAllowed):
        autostart.answers(home)


def test_a_folder_open_to_others_is_refused_and_left_as_it_is(daemon: FakeDaemon) -> None:
    daemon.home.root.chmod(0o2775)
    with pytest.raises(NotAllowed) as refused:
        autostart.answers(daemon.home)
    assert refused.value.code == "home.open"
    assert daemon.home.root.stat().st_mode & 0o7777 == 0o2775
    daemon.home.root.chmod(0o755)
    assert autostart.answers(daemon.home)
    assert daemon.home.root.stat().st_mode & 0o7777 == 0o755


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_socket_of_somebody_else_is_refused(daemon: FakeDaemon) -> None:
    os.chown(daemon.home.socket, 12345, 12345)
    with pytest.raises(NotAllowed):
        autostart.answers(daemon.home)


@pytest.mark.parametrize("what", ["open to all", "a file", "a link"])
def test_what_is_no_socket_of_ours_alone_is_refused(daemon: FakeDaemon, what: str) -> None:
    path = daemon.home.socket
    if what == "open to all":
        path.chmod(0o666)
    else:
        path.rename(path.with_name("aside"))
        path.write_text("") if what == "a file" else path.symlink_to(path.with_name("aside"))
    with pytest.raises(NotAllowed) as caught:
        autostart.answers(daemon.home)
    assert caught.value.code == "socket.foreign"


def test_a_request_harmless_twice_is_sent_again_to_a_daemon_that_comes_back(
    daemon: FakeDaemon,
) -> None:
    daemon.jobs = [job(1)]
    with Daemon(autostart=False) as client:
        daemon.stop()
        threading.Timer(0.2, daemon.start).start()
        assert len(client.call(client.jobs.List, ListJobsRequest(), again=True).jobs) == 1


def test_a_daemon_that_has_no_processor_for_a_moment_is_waited_for(home: Home) -> None:
    process = DaemonProcess(home.root).start()
    try:
        pid = process.info().pid
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (pid, signal.SIGCONT)).start()
        with Daemon(autostart=False) as client:
            assert not client.call(client.jobs.List, ListJobsRequest()).jobs
    finally:
        process.end()


def test_a_daemon_that_stays_away_is_unreachable(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safetrain.connection.RETURN_SECONDS", 0.2)
    with Daemon(autostart=False) as client:
        daemon.stop()
        with pytest.raises(Unreachable):
            client.call(client.jobs.List, ListJobsRequest(), again=True)


def test_following_across_restarts_loses_nothing_and_repeats_nothing(daemon: FakeDaemon) -> None:
    daemon.jobs = [job(1)]
    daemon.events = [event(seq, step(seq)) for seq in range(1, 4)]
    with Daemon(autostart=False) as client:
        follower, seen = Follower(client, 1), []
        for events, _up_to_date in follower.batches():
            seen += [e.seq for e in events]
            if len(seen) in (3, 6):
                daemon.stop()
                daemon.events += [event(len(seen) + n, step(len(seen) + n)) for n in (1, 2, 3)]
                daemon.start()
            if len(seen) == 9:
                daemon.jobs = [job(1, JobState.SUCCEEDED)]
                daemon.ended.set()
    assert seen == list(range(1, 10))
    assert follower.state is JobState.SUCCEEDED

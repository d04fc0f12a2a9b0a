"""Starts, sockets, disks and noise: what a daemon meets, with the real binary."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.rpc import error_details_pb2, status_pb2

from safetrain_proto.v1 import control_pb2, jobs_pb2
from safetrain_shared.errors import NotFound
from safetrain_shared.events import Outcome, StateChanged
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import Home
from safetrain_shared.wire import STATUS_DETAILS, error_from_wire
from safetraind.storage import event_file
from tests.daemon.conftest import MakeSpec
from tests.daemon.fakes import let_go
from tests.harness import DaemonProcess, wait_for


def error_of(caught: pytest.ExceptionInfo[grpc.RpcError]) -> Any:
    trailers = dict(caught.value.trailing_metadata())  # type: ignore[attr-defined]
    return error_from_wire(trailers[STATUS_DETAILS])


def command(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "safetraind", *arguments],
        env=daemon.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_many_starts_at_once_make_one_daemon(home: Path) -> None:
    daemon = DaemonProcess(home)
    starts = [
        subprocess.Popen(
            [sys.executable, "-m", "safetraind", "start"],
            env=daemon.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(20)
    ]
    try:
        codes = [start.wait(120) for start in starts]
        assert sorted(codes) == [0, *[75] * 19]
        serving = [p for p in daemon.processes() if p.cmdline()[-1] == "run"]
        assert [p.pid for p in serving] == [daemon.info().pid]
        assert command(daemon, "stop").returncode == 0
        wait_for(lambda: not daemon.processes())
    finally:
        daemon.end()


def test_a_second_daemon_is_refused_and_the_first_untouched(daemon: DaemonProcess) -> None:
    before = daemon.info()
    socket_before = daemon.home.socket.stat().st_ino
    for way in ("run", "start"):
        refused = command(daemon, way)
        assert refused.returncode == 75
        assert str(before.pid) in refused.stderr
        assert "Traceback" not in refused.stderr
    assert daemon.home.socket.stat().st_ino == socket_before
    assert daemon.info().pid == before.pid


def test_a_stale_socket_and_pid_are_replaced_and_the_new_socket_is_ours_alone(home: Path) -> None:
    home.mkdir(mode=0o755)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(Home(home).socket))
    stale.close()
    Home(home).lock.write_text(str(os.getpid()))  # its pid is another program's now
    daemon = DaemonProcess(home)
    try:
        daemon.start()
        assert stat.S_IMODE(home.stat().st_mode) == 0o755, "not made by us, so as it was"
        assert stat.S_IMODE(daemon.home.socket.stat().st_mode) == 0o600
        listening = psutil.Process(daemon.info().pid).net_connections("tcp")
        assert not listening
    finally:
        daemon.end()


def test_a_home_with_a_path_of_two_hundred_characters_is_served(tmp_path: Path) -> None:
    long = tmp_path / ("ç" * 60) / ("x" * 80)
    daemon = DaemonProcess(long)
    try:
        daemon.start()
        assert len(os.fsencode(daemon.home.socket)) <= 103
        assert daemon.info().home == str(long)
    finally:
        daemon.end()


def test_a_folder_that_is_not_a_home_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    daemon = DaemonProcess(tmp_path / "file")
    refused = command(daemon, "run")
    assert refused.returncode == 77
    assert refused.stderr.startswith("safetraind: ")
    assert len(refused.stderr.splitlines()) == 1


def test_a_wrong_command_line_is_refused_in_the_users_language(home: Path) -> None:
    done = command(DaemonProcess(home), "logs", "--lines", "x", "--lang", "pt")
    assert done.returncode == 2
    said = "safetraind: Valor inválido para '--lines' / '-n': 'x' não é um número inteiro.\n"
    assert done.stderr == said + "Como se usa: safetraind logs --help\n"


@pytest.mark.parametrize("verb", ["run", "start", "logs"])
def test_a_folder_in_the_place_of_the_log_is_refused_with_a_sentence(home: Path, verb: str) -> None:
    (home / "daemon.log").mkdir(parents=True)
    done = command(DaemonProcess(home), verb)
    assert done.returncode == 77
    assert done.stderr.count("\n") == 1 and f"{home}/daemon.log cannot be" in done.stderr


def test_a_damaged_database_is_refused_with_a_sentence_and_kept(home: Path) -> None:
    home.mkdir(mode=0o700)
    (home / "jobs.db").write_text("no database " * 1000)
    refused = command(DaemonProcess(home), "run")
    assert refused.returncode == 72
    assert refused.stderr.startswith("safetraind: ")
    assert (home / "jobs.db").read_text() == "no database " * 1000


def test_unknown_fields_of_a_newer_client_are_passed_over(daemon: DaemonProcess) -> None:
    """Field 999 is of a version to come; the call answers as if it were not there."""
    info = daemon.channel.unary_unary(
        "/safetrain.v1.Control/Info",
        response_deserializer=control_pb2.InfoResponse.FromString,
    )
    answer = info(b"\xba\x3e\x03abc", timeout=30)
    assert "ask-training" in answer.features
    later = daemon.channel.unary_unary("/safetrain.v1.Jobs/FromTheFuture")
    with pytest.raises(grpc.RpcError) as caught:
        later(b"", timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_errors_travel_as_status_details(daemon: DaemonProcess) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        daemon.job(77)
    error = error_of(caught)
    assert isinstance(error, NotFound)
    assert (error.code, error.args_by_name) == ("job.unknown", {"id": 77})
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    info = error_details_pb2.ErrorInfo()
    trailer = dict(caught.value.trailing_metadata())[STATUS_DETAILS]  # type: ignore[attr-defined]
    status_pb2.Status.FromString(trailer).details[0].Unpack(info)
    assert (info.reason, info.domain) == ("JOB_UNKNOWN", "safetrain.v1")
    assert info.metadata == {"class": "NotFound", "code": "job.unknown", "id": "77"}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_a_generic_client_finds_health_and_every_service_by_reflection(
    daemon: DaemonProcess, version: str
) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2

    health = health_pb2_grpc.HealthStub(daemon.channel).Check(
        health_pb2.HealthCheckRequest(), timeout=5
    )
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    reflect = daemon.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    itself = f"grpc.reflection.{version}.ServerReflection"
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    describing = reflection_pb2.ServerReflectionRequest(file_containing_symbol=itself)
    listed, described = reflect(iter([listing, describing]), timeout=30)
    names = {service.name for service in listed.list_services_response.service}
    assert itself in names
    assert described.file_descriptor_response.file_descriptor_proto
    ours = ("Answers", "Control", "Data", "Events", "Jobs", "Models", "Preflight")
    assert {f"safetrain.v1.{name}" for name in ours} <= names


@pytest.mark.parametrize("moment", ["check", "train"])
def test_cancel_twice_at_any_moment_is_one_cancel(
    moment: str, playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    name = "holds=check" if moment == "check" else "hold=3"
    job = playing.start().submit(make_spec(name=name)).job
    wait_for(lambda: playing.workers())
    request = jobs_pb2.JobRequest(id=job.id)
    playing.jobs.Cancel(request)
    with contextlib.suppress(grpc.RpcError):  # it may have ended in between
        playing.jobs.Cancel(request)
    playing.wait_for_state(job.id, JobState.CANCELLED)
    states = [e.body.state for e in playing.watch(job.id) if isinstance(e.body, StateChanged)]
    assert states.count(JobState.CANCELLED) == 1
    wait_for(lambda: not playing.workers())


def test_cancel_against_finish_ends_in_one_of_both(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    playing.start()
    for n in range(4):
        job = playing.submit(make_spec(f"out{n}", name="pace=0.005", num_epochs=1)).job
        wait_for(lambda job=job: playing.job(job.id).step >= 5 or playing.state(job.id) is None)
        with contextlib.suppress(grpc.RpcError):
            playing.jobs.Cancel(jobs_pb2.JobRequest(id=job.id))
        state = playing.wait_for_state(job.id)
        outcomes = [e.body.outcome for e in playing.watch(job.id) if isinstance(e.body, Outcome)]
        assert outcomes == [state.value]


def test_a_restart_of_the_machine_is_told_and_the_job_goes_on(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """As the next boot finds it: daemon and worker gone, launch.json from another boot."""
    job = playing.start().submit(make_spec(name="hold=7")).job
    wait_for(lambda: playing.job(job.id).step == 7)
    for process in [playing.process, *playing.keepers(), *playing.workers()]:
        assert process is not None
        process.send_signal(signal.SIGKILL)
    playing.kill()
    seen = event_file.last_seq(playing.home.run(job.id).events)
    launch = playing.home.run(job.id).launch
    launch.write_text(launch.read_text().replace('"boot_id": "', '"boot_id": "before-'))
    let_go(tmp_path / "out")
    playing.start()
    playing.wait_for_state(job.id, JobState.SUCCEEDED)
    events = list(playing.watch(job.id))
    causes = [e.body.cause.code for e in events if getattr(e.body, "cause", None)]
    assert "job.machine_restarted" in causes
    watermark = [event.seq for event in events]
    assert watermark == sorted(set(watermark))
    new = [seq for seq in watermark if seq > seen]
    assert new[0] > seen + 1000, "a new block: watchers may have seen what the disk lost"
    assert new == list(range(new[0], new[-1] + 1)), "one block, not one for each event"


def test_an_idempotent_submit_is_one_job(playing: DaemonProcess, make_spec: MakeSpec) -> None:
    playing.start()
    spec = make_spec(name="pace=0.05")
    answers: list[jobs_pb2.SubmitResponse] = []
    threads = [
        threading.Thread(target=lambda: answers.append(playing.submit(spec, idempotency_key="abc")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert {answer.job.id for answer in answers} == {1}
    playing.kill()
    playing.start()
    assert playing.submit(spec, idempotency_key="abc").job.id == 1
    assert len(playing.jobs.List(jobs_pb2.ListJobsRequest()).jobs) == 1

"""Who connects: noise, silence, too many, and watchers that stand still."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import psutil
import pytest

from safetrain_proto.v1 import events_pb2, events_pb2_grpc
from safetrain_shared.errors import Busy
from safetrain_shared.jobs import JobState
from safetraind.service.stream_limit import MAX_STREAMS
from tests.daemon.conftest import MakeSpec
from tests.daemon.test_faults import error_of
from tests.harness import DaemonProcess, wait_for

FLAT = 8 << 20  # bytes that a daemon may grow by while thousands of events pass


def test_noise_and_silence_on_the_socket_harm_nobody(daemon: DaemonProcess) -> None:
    path = str(daemon.home.socket)
    silent = []
    for n in range(60):
        sink = socket.socket(socket.AF_UNIX)
        sink.connect(path)
        if n % 3:
            with contextlib.suppress(OSError):
                sink.sendall(
                    os.urandom(4096) if n % 2 else b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" * 50
                )
        silent.append(sink)
    call = daemon.channel.unary_unary("/safetrain.v1.Jobs/Submit")
    with pytest.raises(grpc.RpcError):
        call(os.urandom(1000), timeout=30)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\x0a" * (2 << 20), timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert daemon.info().pid
    for sink in silent:
        sink.close()


def test_a_silent_connection_is_dropped_and_others_are_served_meanwhile(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    path = str(playing.start().home.socket)
    silent = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for sink in silent:
        sink.settimeout(20)
        sink.connect(path)
    job = playing.submit(make_spec(num_epochs=1)).job.id
    playing.wait_for_state(job, JobState.SUCCEEDED)
    for sink in silent:
        while sink.recv(4096):  # the server's greeting, then the end
            pass
        sink.close()
    assert playing.info().pid


def test_a_watcher_that_stops_reading_costs_the_daemon_no_memory(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    job = playing.start().submit(make_spec(name="pace=0.0005", num_epochs=400)).job
    assert playing.process is not None
    process = psutil.Process(playing.process.pid)
    idle = playing.watch(job.id, follow=True)
    assert next(idle).seq == 1
    before = process.memory_info().rss
    playing.wait_for_state(job.id, JobState.SUCCEEDED, seconds=90)
    assert process.memory_info().rss - before < 8 << 20
    watermark = [event.seq for event in idle]
    assert watermark == list(range(2, watermark[-1] + 1))
    assert len(watermark) > 4000


_WATCHER = """
import sys
from tests.harness import DaemonProcess
from pathlib import Path
for event in DaemonProcess(Path(sys.argv[1])).watch(int(sys.argv[2]), follow=True):
    print(event.seq, flush=True)
"""


def test_a_watcher_process_that_is_stopped_costs_nothing_and_misses_nothing(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    job = playing.start().submit(make_spec(name="pace=0.0005", num_epochs=400)).job
    assert playing.process is not None
    daemon = psutil.Process(playing.process.pid)
    seen = tmp_path / "seen"
    with seen.open("wb") as file:
        command = [sys.executable, "-c", _WATCHER, str(playing.home.root), str(job.id)]
        watcher = subprocess.Popen(command, stdout=file, cwd=Path(__file__).parents[2])
    try:
        wait_for(lambda: seen.stat().st_size)
        watcher.send_signal(signal.SIGSTOP)
        wait_for(lambda: psutil.Process(watcher.pid).status() == psutil.STATUS_STOPPED)
        before = daemon.memory_info().rss
        playing.wait_for_state(job.id, JobState.SUCCEEDED, seconds=90)
        assert daemon.memory_info().rss - before < FLAT
        watcher.send_signal(signal.SIGCONT)
        assert watcher.wait(60) == 0
    finally:
        watcher.kill()
    watermark = [int(line) for line in seen.read_text().split()]
    assert watermark == list(range(1, watermark[-1] + 1))
    assert watermark[-1] > 4000


def test_too_many_streams_are_refused_with_a_sentence_and_one_that_ends_makes_room(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    """Over several connections: the limit of gRPC itself holds for each alone."""
    job = playing.start().submit(make_spec(name="pace=0.1", num_epochs=100)).job.id
    request = events_pb2.WatchRequest(job_id=job, follow=True)
    own = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.insecure_channel(f"unix:{playing.home.socket}", options=own) for _ in range(3)]
    streams = []
    for n in range(MAX_STREAMS):
        streams.append(events_pb2_grpc.EventsStub(channels[n % 3]).Watch(request))
        next(streams[-1])
    with pytest.raises(grpc.RpcError) as caught:
        next(events_pb2_grpc.EventsStub(channels[0]).Watch(request))
    error = error_of(caught)
    assert isinstance(error, Busy)
    assert (error.code, error.args_by_name) == ("daemon.streams_full", {"limit": MAX_STREAMS})
    assert playing.job(job).id == job, "short calls are answered"

    def one_more(channel: grpc.Channel) -> bool:
        streams.append(events_pb2_grpc.EventsStub(channel).Watch(request))
        with contextlib.suppress(grpc.RpcError):
            return bool(next(streams[-1]))
        return False

    streams[0].cancel()
    wait_for(lambda: one_more(channels[0]), what="its place is free")
    assert not one_more(channels[0])
    for channel in channels[1:]:
        channel.close()
    wait_for(lambda: one_more(channels[0]), what="whoever went away without a word made room, too")
    channels[0].close()

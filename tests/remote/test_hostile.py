"""A host that answers with malice: its file names, sizes, paths and floods do no harm here."""

# ruff: noqa: N802 (the services name their methods)
from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from safetrain import cli
from safetrain.connection import Daemon
from safetrain.remote.fetch import content, fetch
from safetrain.remote.upload import send
from safetrain_proto.v1 import files_pb2, files_pb2_grpc
from safetrain_shared.errors import Broken, NoRoom, NotAllowed, SafetrainError, Unreachable
from safetrain_shared.paths import Home, private, socket_target
from safetrain_shared.remote import host_list
from safetrain_shared.remote.host_list import Host
from safetrain_shared.remote.tunnel import Tunnel
from tests.remote.studio import Studio

_DATA = b"0123456789"
_SHA256 = hashlib.sha256(_DATA).hexdigest()


class Hostile(files_pb2_grpc.FilesServicer):
    """Lists `files` and sends `data` for each; says that it holds `held` of any upload."""

    def __init__(self) -> None:
        self.files: list[files_pb2.JobFile] = []
        self.data = [_DATA]
        self.held = files_pb2.Held()
        self.puts = self.gets = 0

    def List(self, request: Any, context: Any) -> Any:
        return files_pb2.JobFiles(files=self.files)

    def Get(self, request: Any, context: Any) -> Iterator[Any]:
        self.gets += 1
        for data in self.data:
            yield files_pb2.Chunk(data=data)

    def Look(self, request: Any, context: Any) -> Any:
        return self.held

    def Put(self, requests: Any, context: Any) -> Any:
        self.puts += 1
        for _request in requests:
            pass
        return files_pb2.PutResponse(held=self.held)

    def lists(self, *names: str, size: int = len(_DATA), sha256: str = _SHA256) -> None:
        """Lists files of these names."""
        self.files = [files_pb2.JobFile(name=name, size=size, sha256=sha256) for name in names]


@pytest.fixture
def hostile(home: Path) -> Iterator[Hostile]:
    """The daemon of `home`, as hostile as one of another machine could be."""
    private(home)
    servicer, server = Hostile(), grpc.server(futures.ThreadPoolExecutor(2))
    files_pb2_grpc.add_FilesServicer_to_server(servicer, server)
    before = os.umask(0o177)
    server.add_insecure_port(socket_target(Home(home).socket))
    os.umask(before)
    server.start()
    yield servicer
    server.stop(None).wait()


@pytest.fixture
def daemon(hostile: Hostile, home: Path) -> Iterator[Daemon]:
    with Daemon(Home(home), autostart=False) as found:
        yield found


def test_a_plain_file_is_fetched(hostile: Hostile, daemon: Daemon, tmp_path: Path) -> None:
    hostile.lists("plots/loss.png")
    assert fetch(daemon, 1, tmp_path / "here") == [tmp_path / "here/plots/loss.png"]


def test_no_file_lands_outside_of_the_folder(
    hostile: Hostile, daemon: Daemon, tmp_path: Path
) -> None:
    here, outside = tmp_path / "here", tmp_path / "outside"
    here.mkdir()
    outside.mkdir()
    (here / "linked").symlink_to(outside)
    (here / "plots").mkdir()
    (here / "plots/loss.png").symlink_to(outside / "loss.png")
    names = (
        "../x",
        str(outside / "x"),
        "linked/x",
        "plots/loss.png",
        ".ssh/rc",
        "a/.git/x",
        "a\nb",
    )
    for name in names:
        hostile.lists(name)
        with pytest.raises(NotAllowed) as refused:
            fetch(daemon, 1, here)
        assert refused.value.code == "files.name", name
    assert list(outside.iterdir()) == [] and not (tmp_path / "x").exists()


def test_a_file_that_stands_where_a_folder_must_be_is_a_sentence(
    hostile: Hostile, daemon: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile.lists("a", "a/b")
    assert cli.main(["fetch", "1", "--output", str(tmp_path / "here")]) != 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_flood_ends_at_what_was_announced(
    hostile: Hostile, daemon: Daemon, tmp_path: Path
) -> None:
    hostile.lists("adapters/x")
    hostile.data = [_DATA] * 1000
    with pytest.raises(Broken) as refused:
        fetch(daemon, 1, tmp_path / "here")
    assert refused.value.code == "files.changed" and hostile.gets < 10
    assert [path for path in (tmp_path / "here").rglob("*") if path.is_file()] == []
    hostile.data = [bytes(1 << 20)] * 100
    with pytest.raises(Broken):
        content(daemon, 1, "preflight_report.json")


def test_impossible_sizes_and_hashes_are_refused(
    hostile: Hostile, daemon: Daemon, tmp_path: Path
) -> None:
    hostile.lists("x", size=1 << 60)
    with pytest.raises(NoRoom):
        fetch(daemon, 1, tmp_path / "here")
    for size, sha256 in ((-1, _SHA256), (1, "../../x"), (1, "")):
        hostile.lists("x", size=size, sha256=sha256)
        with pytest.raises(Broken):
            fetch(daemon, 1, tmp_path / "here")
    hostile.lists("x", sha256="0" * 64)
    with pytest.raises(Broken) as refused:
        fetch(daemon, 1, tmp_path / "here")
    assert refused.value.code == "files.changed"
    assert [p for p in tmp_path.rglob("*") if p.is_file() and "here" in p.parts] == []


@pytest.mark.parametrize("held", [-5, 5, 1 << 60])
def test_an_upload_that_is_never_whole_ends(
    hostile: Hostile, daemon: Daemon, tmp_path: Path, held: int
) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(_DATA)
    hostile.held = files_pb2.Held(bytes=held)
    with pytest.raises(SafetrainError) as refused:
        send(daemon, str(file))
    assert refused.value.code == "host.never_whole" and hostile.puts < 10


@pytest.mark.parametrize(
    "script",
    [
        """echo '{"socket": "/tmp/a:/etc/passwd", "version": "1", "folder": "/"}'""",
        """echo '{"socket": "-oProxyCommand=x", "version": "1", "folder": "/"}'""",
        """echo '{"socket": "/tmp/a\\\\nb", "version": "1", "folder": "/"}'""",
        """echo '{"socket": "/tmp/a", "version": "1", "folder": "relative"}'""",
        "echo '[1]'",
        "yes",  # without end
        "yes >&2",
    ],
)
def test_what_a_host_says_of_its_daemon_is_checked(
    studio: Studio, tmp_path: Path, script: str
) -> None:
    program = tmp_path / "safetraind"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    host = Host("hostile", "studio", str(program))
    host_list.add(host)
    with pytest.raises(Unreachable) as refused:
        Tunnel(host, print).endpoint(autostart=True)
    assert refused.value.code == "host.not_understood"

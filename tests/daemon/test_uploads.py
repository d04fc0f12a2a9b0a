"""Files from other machines: only whole ones with the right content are kept, under plain names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from safetrain_proto.v1.files_pb2 import (
    GatherRequest,
    GetRequest,
    Held,
    JobFilesRequest,
    Offer,
    PutRequest,
)
from safetrain_proto.v1.files_pb2_grpc import FilesStub
from safetrain_shared.paths import Home, socket_target
from tests.daemon.conftest import PLAY
from tests.daemon.test_faults import error_of
from tests.harness import DaemonProcess

CONTENT = b"0123456789" * 1000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilesStub]:
    process = DaemonProcess(tmp_path_factory.mktemp("files") / "home", PLAY)
    try:
        process.start()
        with grpc.insecure_channel(socket_target(Home(process.home.root).socket)) as channel:
            yield FilesStub(channel)
    finally:
        process.end()


def offer(content: bytes, name: str = "train.jsonl", size: int | None = None) -> Offer:
    digest = hashlib.sha256(content).hexdigest()
    return Offer(sha256=digest, size=len(content) if size is None else size, name=name)


def put(files: FilesStub, wanted: Offer, *pieces: bytes) -> Held:
    requests = [PutRequest(offer=wanted), *(PutRequest(data=piece) for piece in pieces)]
    return files.Put(iter(requests)).held


def test_a_file_in_two_parts_is_whole_and_is_not_taken_again(files: FilesStub) -> None:
    wanted = offer(CONTENT)
    half = put(files, wanted, CONTENT[:5000])
    assert (half.path, half.bytes) == ("", 5000)
    assert files.Look(wanted).bytes == 5000
    whole = put(files, wanted, CONTENT[5000:])
    assert Path(whole.path).read_bytes() == CONTENT
    assert (
        Path(whole.path).stat().st_mode & 0o077 == 0
        or Path(whole.path).parent.stat().st_mode & 0o077 == 0
    )
    assert put(files, wanted, b"more") == whole == files.Look(wanted)


def test_the_same_content_under_another_name_is_not_sent_again(files: FilesStub) -> None:
    put(files, offer(CONTENT + b"0"), CONTENT + b"0")
    again = files.Look(offer(CONTENT + b"0", "other.jsonl"))
    assert Path(again.path).name == "other.jsonl" and again.bytes == len(CONTENT) + 1
    assert Path(again.path).read_bytes() == CONTENT + b"0"


def test_a_folder_is_made_of_whole_files_alone(files: FilesStub) -> None:
    config, weights = offer(b"{}", "config.json"), offer(CONTENT, "model.safetensors")
    put(files, config, b"{}")
    both = GatherRequest(name="tiny", files=[config, weights])
    put(files, weights, CONTENT[:10])
    refused = {
        "files.not_whole": GatherRequest(name="tiny", files=[offer(b"never", "a")]),
        "files.offer": GatherRequest(name="../tiny", files=[config]),
        "request.malformed": GatherRequest(name="tiny", files=[config] * 1001),
    }
    for code, request in refused.items():
        with pytest.raises(grpc.RpcError) as error:
            files.Gather(request)
        assert error_of(error).code == code
    for names in ([config, config], []):
        with pytest.raises(grpc.RpcError):
            files.Gather(GatherRequest(name="tiny", files=names))
    if not files.Look(weights).path:
        put(files, weights, CONTENT[10:])
    folder = Path(files.Gather(both).path)
    assert folder.name == "tiny" and files.Gather(both).path == str(folder)
    assert (folder / "config.json").read_bytes() == b"{}"
    assert (folder / "model.safetensors").read_bytes() == CONTENT


def test_a_wrong_byte_is_refused_and_dropped(files: FilesStub) -> None:
    wanted = offer(CONTENT + b"x", "wrong.jsonl")
    with pytest.raises(grpc.RpcError) as refused:
        put(files, wanted, CONTENT + b"y")
    assert error_of(refused).code == "files.damaged"
    assert files.Look(wanted) == Held()
    with pytest.raises(grpc.RpcError) as refused:
        put(files, wanted, CONTENT + b"xy")
    assert error_of(refused).code == "files.too_long"


@pytest.mark.parametrize("name", ["", ".bashrc", "../x", "a/b", "x\x1b[2J", "n" * 300])
def test_a_name_that_is_no_plain_file_name_is_refused(files: FilesStub, name: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        files.Look(offer(CONTENT, name))
    assert error_of(refused).code == "files.offer"


def test_impossible_offers_and_calls_are_sentences(files: FilesStub) -> None:
    bad = [Offer(sha256="../../x", size=1, name="x"), offer(CONTENT, size=-1), Offer()]
    for wanted in bad:
        with pytest.raises(grpc.RpcError) as refused:
            files.Look(wanted)
        assert error_of(refused).code == "files.offer"
    for requests in ([], [PutRequest(data=b"x")]):
        with pytest.raises(grpc.RpcError) as refused:
            files.Put(iter(requests))
        assert error_of(refused).code == "request.malformed"
    with pytest.raises(grpc.RpcError) as refused:
        files.List(JobFilesRequest(job_id=99))
    assert error_of(refused).code == "job.unknown"
    with pytest.raises(grpc.RpcError) as refused:
        list(files.Get(GetRequest(job_id=99, name="../../etc/passwd")))
    assert error_of(refused).code == "job.unknown"

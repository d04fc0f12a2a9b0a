"""Sends files to a host by their content: once, in pieces, going on where a link broke."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safetrain.connection import Daemon, connection_lost
from safetrain_proto.v1.files_pb2 import GatherRequest, Held, Offer, PutRequest
from safetrain_shared.errors import Broken, InvalidInput, NotFound, SafetrainError

_PIECE_BYTES = 512 << 10  # the daemon takes requests of at most 1 MiB
_ATTEMPTS_WITHOUT_PROGRESS = 5
Progress = Callable[[float], None]  # takes the share that is there, 0 to 1


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    offer: Offer


def send(daemon: Daemon, path: str, progress: Progress = lambda _: None) -> str:
    """Send the file and return its path on the host; one that is there already is not sent again.

    After a broken link it goes on from what has arrived. Raises NotFound for a file that cannot be
    read, and SafetrainError where the host refuses it or stays out of reach.
    """
    return _sent(daemon, _offered(Path(path)), progress)


def send_folder(daemon: Daemon, path: str, progress: Progress = lambda _: None) -> str:
    """Send the files of a folder, without hidden ones and its folders; return its path on the host.

    What is there already is not sent again. Raises InvalidInput for a folder without files, and
    what `send` raises.
    """
    paths = (file for file in Path(path).iterdir() if not file.name.startswith("."))
    files = [_offered(file) for file in sorted(paths) if file.is_file()]
    if not files:
        raise InvalidInput("host.folder_empty", path=path, host=daemon.host)
    total, done = max(1, sum(file.offer.size for file in files)), 0
    for file in files:
        before, size = done, file.offer.size
        _sent(daemon, file, lambda share: progress((before + share * size) / total))  # noqa: B023
        done += size
    request = GatherRequest(name=Path(path).name, files=[file.offer for file in files])
    return daemon.call(daemon.files.Gather, request, again=True).path


def _sent(daemon: Daemon, file: _File, progress: Progress) -> str:
    held = daemon.call(daemon.files.Look, file.offer, again=True)
    attempts = 0
    while not held.path:
        before = _possible(held, file)
        try:
            held = _put(daemon, file, before, progress)
        except SafetrainError as error:
            if not connection_lost(error) or attempts >= _ATTEMPTS_WITHOUT_PROGRESS:
                raise
            daemon.recover(error)
            held = daemon.call(daemon.files.Look, file.offer, again=True)
        attempts = 0 if _possible(held, file) > before else attempts + 1
        if attempts > _ATTEMPTS_WITHOUT_PROGRESS:
            raise Broken("host.never_whole", host=daemon.host, name=file.offer.name)
    progress(1.0)
    return held.path


def _possible(held: Held, file: _File) -> int:
    """Return the bytes that the host holds; its answer is untrusted."""
    return min(max(0, held.bytes), file.offer.size)


def _put(daemon: Daemon, file: _File, start: int, progress: Progress) -> Held:
    return daemon.send(daemon.files.Put, _pieces(file, start, progress)).held


def _pieces(file: _File, start: int, progress: Progress) -> Iterator[PutRequest]:
    """Yield the offer, then the file from `start` on."""
    yield PutRequest(offer=file.offer)
    with file.path.open("rb") as source:
        source.seek(start)
        while data := source.read(_PIECE_BYTES):
            yield PutRequest(data=data)
            progress(source.tell() / max(1, file.offer.size))


def _offered(path: Path) -> _File:
    try:
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            size = source.tell()
    except OSError as error:
        raise NotFound("path.missing", path=str(path), reason=str(error.strerror)) from None
    return _File(path, Offer(sha256=digest, size=size, name=path.name))

"""Takes a file that was dropped on the page, within a limit, and gives it to the daemon."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from starlette.requests import Request

from safetrain.connection import Daemon
from safetrain.inputs import absolute, sample_data
from safetrain.remote.upload import send
from safetrain_shared.errors import InvalidInput, NotAllowed, NotFound

MOST_BYTES = 4 << 30  # of one dropped file; a larger one is pointed at, or sent with the commands
NAME_HEADER = "X-Safetrain-Name"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """A source of training data on the daemon's machine.

    `digest`: hexadecimal, of its content, or of names, sizes and times of a folder's files; empty
    where it lies ready for training.
    """

    path: str
    name: str
    bytes: int
    digest: str = ""
    valid: str = ""
    questions: str = ""


async def received(daemon: Daemon, request: Request, most: int = MOST_BYTES) -> Source:
    """Receive the body of a request as a file and send it to the daemon by its content.

    Raises InvalidInput for more than `most` bytes, before it is read where its length is told, and
    for a name that cannot be a file's.
    """
    name = unquote(request.headers.get(NAME_HEADER, ""))
    if not name.isprintable() or "/" in name or name.startswith(".") or not name:
        raise InvalidInput("files.offer", name=name[:80], limit=most)
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        raise InvalidInput("page.upload_too_large", size=int(told), limit=most)
    with tempfile.TemporaryDirectory(prefix="safetrain-") as folder:
        file = Path(folder) / name
        size = await _written(file, request.stream(), most)
        if not size:
            raise InvalidInput("page.upload_empty", name=name)
        path = await asyncio.to_thread(send, daemon, str(file))
    return Source(path, name, size, digest=Path(path).parent.name)


async def _written(file: Path, chunks: AsyncIterator[bytes], most: int) -> int:
    size = 0
    with file.open("wb") as target:
        async for chunk in chunks:
            size += len(chunk)
            if size > most:
                raise InvalidInput("page.upload_too_large", size=size, limit=most)
            await asyncio.to_thread(target.write, chunk)
    return size


def pointed_at(daemon: Daemon, text: str) -> Source:
    """Return the file or folder at a path of this machine; it is sent where the daemon is another.

    A folder written by `prepare` is taken as it is. Raises NotFound, NotAllowed, InvalidInput.
    """
    path = Path(absolute(text.strip()))
    try:
        if path.is_dir():
            if daemon.host:
                raise InvalidInput("host.folder_here", path=str(path))
            return _folder(path)
        size = path.stat().st_size
        if daemon.host:
            sent = send(daemon, str(path))
            return Source(sent, path.name, size, digest=Path(sent).parent.name)
        return Source(str(path), path.name, size, digest=_digest(path))
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("path.missing", path=str(path)) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotAllowed("path.unreadable", path=str(path), reason=reason) from None


def sample(daemon: Daemon) -> Source:
    """Return the sample data that come with safetrain, ready for training."""
    train, valid = sample_data()
    questions = Path(train).with_name("farense_questions.jsonl")
    files = [train, valid, str(questions) if questions.is_file() else ""]
    size = Path(train).stat().st_size
    if daemon.host:
        files = [send(daemon, file) if file else "" for file in files]
    return Source(files[0], Path(train).name, size, valid=files[1], questions=files[2])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(path: Path) -> Source:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    size = sum(bytes_ for _name, bytes_, _time in facts)
    train, valid, questions = (path / f"{name}.jsonl" for name in ("train", "valid", "questions"))
    if train.is_file() and valid.is_file():
        held_out = str(questions) if questions.is_file() else ""
        return Source(str(train), path.name, size, valid=str(valid), questions=held_out)
    return Source(str(path), path.name, size, hashlib.sha256(repr(facts).encode()).hexdigest())

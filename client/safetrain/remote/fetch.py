"""Brings a job's results from a host: each file whole or not at all, and only what changed."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from safetrain.connection import Daemon, connection_lost
from safetrain_proto.v1.files_pb2 import GetRequest, JobFile, JobFilesRequest
from safetrain_shared.errors import Broken, NoRoom, NotAllowed, SafetrainError
from safetrain_shared.paths import nearest_existing

_LIST_SECONDS = 300.0  # the daemon hashes the files
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LISTINGS = 5  # a file that changes while it is sent is listed again so often
_ATTEMPTS_WITHOUT_PROGRESS = 5
_SMALL_BYTES = 64 << 20
_SUFFIX = ".partial"
Progress = Callable[[float], None]  # takes the share that is there, 0 to 1


def fetch(
    daemon: Daemon, job: int, folder: Path, progress: Progress = lambda _: None
) -> list[Path]:
    """Bring the job's results into `folder` and return those that changed.

    Raises NotFound for an unknown job, Broken where a file arrives damaged, NotAllowed for a name
    that leads out of the folder, and SafetrainError where the host stays out of reach.
    """
    fetched: dict[Path, None] = {}  # a set in order
    for attempt in range(1, _LISTINGS + 1):
        try:
            for path in _changes(daemon, job, folder, progress):
                fetched[path] = None
            break
        except Broken as error:  # a job that trains writes its metrics anew
            if error.code != "files.changed" or attempt == _LISTINGS:
                raise
    return list(fetched)


def _changes(daemon: Daemon, job: int, folder: Path, progress: Progress) -> Iterator[Path]:
    """List the files, bring those that differ here, and yield each. Raises as `fetch`."""
    request = JobFilesRequest(job_id=job)
    files = daemon.call(daemon.files.List, request, seconds=_LIST_SECONDS, again=True).files
    if any(file.size < 0 or not _SHA256.fullmatch(file.sha256) for file in files):
        raise Broken("host.too_much", host=daemon.host)
    wanted = [(file, local_path(folder, file.name)) for file in files]
    changed = [(file, path) for file, path in wanted if _digest(path) != file.sha256]
    _check_room(folder, sum(file.size for file, _ in changed))
    total, done = max(1, sum(file.size for file, _ in changed)), 0
    for file, path in changed:
        _bring(daemon, job, file, path)
        yield path
        done += file.size
        progress(done / total)


def _bring(daemon: Daemon, job: int, file: JobFile, path: Path) -> None:
    """Write beside the file, check the hash, then rename; a part of it is gone on with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The hash in its name: the part of another version is never gone on with.
    partial = path.with_name(f".{path.name}.{file.sha256[:16]}{_SUFFIX}")
    attempts = 0
    while True:
        before = _size(partial)
        try:
            if before < file.size:
                _append(
                    daemon, GetRequest(job_id=job, name=file.name, offset=before), file, partial
                )
            break
        except SafetrainError as error:
            attempts = 0 if _size(partial) > before else attempts + 1
            if not connection_lost(error) or attempts > _ATTEMPTS_WITHOUT_PROGRESS:
                raise
            daemon.recover(error)
    partial.touch()
    if _digest(partial) != file.sha256:
        partial.unlink()
        raise Broken("files.changed", name=file.name)
    partial.replace(path)
    for old in path.parent.glob(f".{glob.escape(path.name)}.*{_SUFFIX}"):  # of versions before
        old.unlink()


def _append(daemon: Daemon, request: GetRequest, file: JobFile, partial: Path) -> None:
    with partial.open("ab") as target:
        for chunk in daemon.stream(daemon.files.Get, request):
            if target.tell() + len(chunk.data) > file.size:  # of another version, or a flood
                partial.unlink()
                raise Broken("files.changed", name=file.name)
            target.write(chunk.data)
        target.flush()
        os.fsync(target.fileno())


def content(daemon: Daemon, job: int, name: str) -> bytes:
    """Return one small result of the job. Raises NotFound, and Broken for one that is not small."""
    found = bytearray()
    for chunk in daemon.stream(daemon.files.Get, GetRequest(job_id=job, name=name)):
        found += chunk.data
        if len(found) > _SMALL_BYTES:
            raise Broken("host.too_much", host=daemon.host)
    return bytes(found)


def _check_room(folder: Path, size: int) -> None:
    """Raise NoRoom where so many bytes do not fit on the disk."""
    if shutil.disk_usage(nearest_existing(folder)).free < size:
        raise NoRoom("files.no_room", name=str(folder), size=size)


def local_path(folder: Path, name: str) -> Path:
    """Return the path at which a fetched file is kept.

    Raises NotAllowed for a name that leads out of the folder, or is hidden: a host's answer is
    untrusted.
    """
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and parts and not PurePosixPath(name).is_absolute()
    if not plain or any(part.startswith(".") or "\\" in part for part in parts):
        raise NotAllowed("files.name", name=name)
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise NotAllowed("files.name", name=name)
    return path


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as source:
            return hashlib.file_digest(source, "sha256").hexdigest()
    except OSError:
        return ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

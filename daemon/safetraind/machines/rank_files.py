"""The files that a rank on another machine needs: the data, kept there by its hash, and the
checkpoint that it resumes from, sent anew for each attempt.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path

from safetrain_proto.v1.machines_pb2 import LendRequest, RankFile
from safetrain_shared.errors import InvalidInput, NoRoom
from safetraind.storage.bounded_read import bounded
from safetraind.storage.manifest import damaged_files, sha256

SILENT_SECONDS = 30.0  # of the leader: the link is gone, though nothing says so
_PIECE_BYTES = 512 << 10  # a daemon takes requests of at most 1 MiB
_MOST_FILES = 100
_MOST_BYTES = 64 << 30
_LEFT_FREE = 1 << 30  # bytes on the disk
_NAME = re.compile(r"checkpoint_epoch_\d{1,9}_step_\d{1,9}/[A-Za-z0-9_][\w.-]{0,99}", re.ASCII)


def newest_checkpoint(output: Path) -> list[RankFile]:
    """Return the files of the newest whole checkpoint in an output folder; none where there is
    none. Reads the checkpoint, and raises OSError.
    """
    folders = output.glob("checkpoint_epoch_*_step_*") if output.is_dir() else ()
    for folder in sorted(folders, key=_place, reverse=True):
        if damaged_files(folder) == []:
            files = [file for file in sorted(folder.iterdir()) if file.is_file()]
            return [
                RankFile(
                    name=f"{folder.name}/{file.name}",
                    size=file.stat().st_size,
                    sha256=sha256(file),
                )
                for file in files
            ]
    return []


def pieces(output: Path, files: Sequence[RankFile]) -> Iterator[bytes]:
    """Yield the content of the files, one after the other. Raises OSError."""
    for file in files:
        with (output / file.name).open("rb") as content:
            while data := content.read(_PIECE_BYTES):
                yield data


async def receive_files(
    folder: Path, files: Iterable[RankFile], requests: AsyncIterator[LendRequest]
) -> None:
    """Write the files that a leader sends into a new folder.

    Raises InvalidInput for a name that leads elsewhere and for another content than was announced,
    and NoRoom.
    """
    files = list(files)
    _check(files)
    folder.mkdir(mode=0o700)
    if shutil.disk_usage(folder).free < sum(file.size for file in files) + _LEFT_FREE:
        size = sum(file.size for file in files)
        raise NoRoom("files.no_room", name=folder.name, size=size)
    rest = b""
    for file in files:
        path = folder / file.name
        path.parent.mkdir(exist_ok=True)
        digest, left = hashlib.sha256(), file.size
        with path.open("xb") as out:
            while left:
                data = rest or await _data(requests, file.name)
                part, rest = data[:left], data[left:]
                await bounded(path, out.write, part)
                digest.update(part)
                left -= len(part)
        if digest.hexdigest() != file.sha256:
            raise InvalidInput("files.damaged", name=file.name)


async def heard(requests: AsyncIterator[LendRequest]) -> LendRequest | None:
    """Return a leader's next message; None where the call has ended, or the leader is silent."""
    try:
        async with asyncio.timeout(SILENT_SECONDS):
            request = await anext(aiter(requests), None)
    except TimeoutError:
        return None
    return request if isinstance(request, LendRequest) else None


async def _data(requests: AsyncIterator[LendRequest], name: str) -> bytes:
    while (request := await heard(requests)) is not None:
        if request.WhichOneof("body") == "data":
            return request.data
    raise InvalidInput("files.not_whole", name=name)


def _check(files: Sequence[RankFile]) -> None:
    sizes = [file.size for file in files]
    named = all(_NAME.fullmatch(file.name) for file in files)
    twice = len({file.name for file in files}) < len(files)
    if not named or twice or len(files) > _MOST_FILES or not 0 <= sum(sizes) <= _MOST_BYTES:
        raise InvalidInput("files.offer", name="checkpoint", limit=_MOST_BYTES)
    if min(sizes, default=0) < 0:
        raise InvalidInput("files.offer", name="checkpoint", limit=_MOST_BYTES)


def _place(folder: Path) -> tuple[int, ...]:
    """Return where in the training a checkpoint was saved."""
    return tuple(int(number) for number in re.findall(r"\d+", folder.name))

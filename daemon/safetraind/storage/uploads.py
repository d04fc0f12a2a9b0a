"""Files that clients on other machines sent, each under its SHA-256 in the home's `uploads`.

uploads/SHA256/NAME       the whole file, checked
uploads/SHA256/.partial   its beginning, while it is sent
uploads/SHA256/NAME/      a folder of such files, as hard links, by the hash of their list
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetrain_shared.errors import InvalidInput, NoRoom
from safetrain_shared.paths import Home, private

MOST_BYTES = 64 << 30  # of one file
_LEFT_FREE = 1 << 30  # bytes that an upload leaves on the disk
_PARTIAL = ".partial"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """One file by its content: `folder` is that of its hash, `name` its own name."""

    folder: Path
    name: str
    sha256: str
    size: int

    @property
    def path(self) -> Path:
        """The path of the whole file."""
        return self.folder / self.name

    @property
    def held(self) -> int:
        """The bytes received so far."""
        for path in (self.path, self.folder / _PARTIAL):
            if path.is_file() and not path.is_symlink():
                return min(path.stat().st_size, self.size)
        return 0

    @property
    def is_whole(self) -> bool:
        """Whether the whole file is there."""
        return self.path.is_file() and self.path.stat().st_size == self.size

    def adopt(self) -> None:
        """Give the file this name too, where the same content is there whole under another."""
        if self.is_whole or not self.folder.is_dir():
            return
        for other in self.folder.iterdir():
            if other.is_file() and other.name[0] != "." and other.stat().st_size == self.size:
                self.path.hardlink_to(other)
                return


def upload(home: Home, sha256: str, size: int, name: str) -> Upload:
    """Return the upload of a file. Raises InvalidInput for a hash, size or name that cannot be."""
    if not _SHA256.fullmatch(sha256) or not 0 <= size <= MOST_BYTES or not _is_name(name):
        raise InvalidInput("files.offer", name=name, limit=MOST_BYTES)
    return Upload(home.root / "uploads" / sha256, name, sha256, size)


def gather(home: Home, name: str, uploads: Sequence[Upload]) -> Path:
    """Return the folder `name` of these files, made where it is not there yet.

    Raises InvalidInput for a name that cannot be, two files of one name, or one that is not whole.
    """
    names = sorted(file.name for file in uploads)
    if not _is_name(name) or not names or len(set(names)) < len(names):
        raise InvalidInput("files.offer", name=name, limit=MOST_BYTES)
    for file in uploads:
        if not file.is_whole:
            raise InvalidInput("files.not_whole", name=file.name)
    listed = "".join(sorted(f"{file.sha256} {file.name}\n" for file in uploads))
    parent = home.root / "uploads" / hashlib.sha256(listed.encode()).hexdigest()
    if not (parent / name).is_dir():
        made = private(private(parent) / f"{_PARTIAL}-{os.urandom(8).hex()}")
        for file in uploads:
            (made / file.name).hardlink_to(file.path)
        try:
            made.rename(parent / name)
        except OSError:
            if not (parent / name).is_dir():  # another client made it meanwhile
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return parent / name


class Receiving:
    """Appends to the part of one upload; `finish` checks it and gives it its name."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._partial = upload.folder / _PARTIAL
        self._file = self._partial.open("ab")
        self.bytes = self._file.tell()

    def append(self, data: bytes) -> None:
        """Append a piece. Raises InvalidInput for more than was offered."""
        if self.bytes + len(data) > self._upload.size:
            raise InvalidInput("files.too_long", name=self._upload.name)
        self._file.write(data)
        self.bytes += len(data)

    def finish(self) -> bool:
        """Check the file and give it its name. Return whether it is whole. Raises InvalidInput, and
        drops the part, where its hash differs.
        """
        self._file.flush()
        if self.bytes < self._upload.size:
            return False
        os.fsync(self._file.fileno())
        with self._partial.open("rb") as whole:
            found = hashlib.file_digest(whole, "sha256").hexdigest()
        if found != self._upload.sha256:
            self._partial.unlink()
            raise InvalidInput("files.damaged", name=self._upload.name)
        self._partial.replace(self._upload.path)
        return True

    def close(self) -> None:
        """Close the part, which stays for a later continuation."""
        self._file.close()


@contextmanager
def receiving(home: Home, upload: Upload) -> Iterator[Receiving]:
    """Open an upload, for one sender at a time. Raises NoRoom."""
    private(home.root / "uploads")
    private(upload.folder)
    if shutil.disk_usage(upload.folder).free < upload.size - upload.held + _LEFT_FREE:
        raise NoRoom("files.no_room", name=upload.name, size=upload.size - upload.held)
    found = Receiving(upload)
    try:
        yield found
    finally:
        found.close()


def read_from(path: Path, offset: int) -> Iterator[bytes]:
    """Yield a file's content from `offset` on, in pieces of at most half a MiB."""
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(_READ_BYTES // 2):
            yield data


def _is_name(name: str) -> bool:
    """Return whether `name` is one part of a path, and none that is hidden or cannot be shown."""
    plain = name.isprintable() and "/" not in name and not name.startswith(".")
    return bool(name) and plain and len(os.fsencode(name)) <= 200

"""Ways in which a file is not what it was, each done to any file of a home or an output folder."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

DEEP = "[" * 200_000 + "]" * 200_000
_HUGE_BYTES = 70 << 20  # more than any JSON file that is read
_NOBODY = 65534
EVERY = "SAFETRAIN_CORRUPTIONS"  # in the environment: every case, not a sample


def flipped(path: Path) -> None:
    """One bit, in the middle."""
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 4
        path.write_bytes(content)


def cut(path: Path) -> None:
    """The second half is gone."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """All is gone but the file."""
    os.truncate(path, 0)


def folder(path: Path) -> None:
    """A folder, with a file in it, has its place."""
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


def a_list(path: Path) -> None:
    """Well-formed JSON of another shape."""
    path.write_text("[1, 2]")


def deep(path: Path) -> None:
    """JSON that is nested deeper than a parser goes."""
    path.write_text(DEEP)


def huge(path: Path) -> None:
    """More than anybody would read into memory."""
    os.truncate(path, _HUGE_BYTES)


def newer(path: Path) -> None:
    """As a version to come may write it."""
    if path.suffix == ".db":
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        return
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError):
        content = {}
    fields = content if isinstance(content, dict) else {}
    path.write_text(json.dumps({**fields, "format": 99}))


def of_another(path: Path) -> None:
    """Another user's, who lets nobody read it. Root reads it all the same."""
    path.chmod(0o600)
    if os.getuid() == 0:
        os.chown(path, _NOBODY, _NOBODY)


KINDS: dict[str, Callable[[Path], None]] = {
    "flipped": flipped,
    "cut": cut,
    "empty": empty,
    "a folder": folder,
    "a list": a_list,
    "deep": deep,
    "huge": huge,
    "newer": newer,
    "of another": of_another,
}


def cases(files: Sequence[str], sample: int) -> Iterator[tuple[str, str]]:
    """Every file with every kind, or `sample` of them, always the same."""
    found = [(file, kind) for file in files for kind in KINDS]
    if not os.environ.get(EVERY):
        found = random.Random(20261128).sample(found, min(sample, len(found)))
    yield from found

"""Ways in which a file is not what it was, each done to any file of a home or an output folder."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

DEEP = "[" * 200_000 + "]" * 200_000
_HUGE_BYTES = 70 << 20  # more than any JSON file that is read
_NOBODY = 65534
_CAPABILITIES = 0x20080522  # the version of Linux' structures, linux/capability.h
# In the environment: "all" cases, a part of them as "2/4", or those of one kind; else a sample.
WANTED = "SAFETRAIN_CORRUPTIONS"


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
    """Another user's, who lets nobody read it; where only root can do that, closed to all."""
    path.chmod(0o600 if os.getuid() == 0 else 0)
    if os.getuid() == 0:
        os.chown(path, _NOBODY, _NOBODY)


def a_fifo(path: Path) -> None:
    """Who opens it waits for another end that never comes."""
    path.unlink()
    os.mkfifo(path, 0o600)


def endless(path: Path) -> None:
    """A link to a device that never ends."""
    path.unlink()
    path.symlink_to("/dev/zero")


def a_loop(path: Path) -> None:
    """A link that leads to itself."""
    path.unlink()
    path.symlink_to(path)


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
    "a fifo": a_fifo,
    "endless": endless,
    "a loop": a_loop,
}


def cases(files: Sequence[str], sample: int) -> Iterator[tuple[str, str]]:
    """Every file with every kind, or one part of them, or `sample` of them, always the same."""
    found = [(file, kind) for file in files for kind in KINDS]
    wanted = os.environ.get(WANTED, "")
    if not wanted:
        found = random.Random(20261128).sample(found, min(sample, len(found)))
    elif "/" in wanted:
        part, parts = map(int, wanted.split("/"))
        found = found[part - 1 :: parts]
    elif wanted != "all":
        found = [case for case in found if case[1] == wanted]
    yield from found


# Before a command of root's: what it runs may read and write what its owner may, and no more.
UNPRIVILEGED = ("setpriv", "--bounding-set", "-all", "--") if os.getuid() == 0 else ()


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """In it, root may read and write what the owner of root's files may, and no more."""
    if os.getuid() != 0:
        yield
        return
    held = _capabilities()
    _set_capabilities([0, held[1], held[2], 0, held[4], held[5]])
    try:
        yield
    finally:
        _set_capabilities(held)


def _capabilities() -> list[int]:
    """This thread's, as capget(2) tells them: effective, permitted, inheritable; twice 32 bits."""
    words = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None).capget((ctypes.c_uint32 * 2)(_CAPABILITIES, 0), words):
        raise OSError("capget")
    return list(words)


def _set_capabilities(words: Sequence[int]) -> None:
    header, data = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0), (ctypes.c_uint32 * 6)(*words)
    if ctypes.CDLL(None).capset(header, data):
        raise OSError("capset")

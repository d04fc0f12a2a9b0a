"""Whether two paths name one folder, which their texts do not show.

A folder that is there is known by device and inode: links, bind mounts and macOS's firmlinks have
others names for it. Of one that is still to be made, macOS takes `Out` and `out`, and a letter with
its accent and the two apart (NFC, NFD), for one name.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from safetrain_shared.paths import nearest_existing

_CASE_SENSITIVE = 11  # macOS, <sys/unistd.h>: _PC_CASE_SENSITIVE, which Python has no name for


def known_name(folder: Path, known: Iterable[str]) -> Path:
    """Return the one of the `known` paths that names the same folder, else `folder`."""
    return next((Path(other) for other in known if same_folder(folder, Path(other))), folder)


def same_folder(one: Path, other: Path) -> bool:
    """Return whether both paths name one folder, there or to be made."""
    if one == other:
        return True
    (here, rest), (there, other_rest) = _divided(one), _divided(other)
    if len(rest) != len(other_rest):
        return False
    try:
        same = os.path.samestat(here.stat(), there.stat())
    except OSError:
        return False
    return same and _folded(here, rest) == _folded(there, other_rest)


def _divided(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the nearest folder that is there, and the names that are still to be made in it."""
    nearest = nearest_existing(path)
    return nearest, path.relative_to(nearest).parts


def _folded(folder: Path, names: tuple[str, ...]) -> list[str]:
    """Return the names as the file system of `folder` compares them."""
    if not _ignores_case(folder):
        return list(names)
    return [unicodedata.normalize("NFC", name).casefold() for name in names]


def _ignores_case(folder: Path) -> bool:
    if sys.platform != "darwin":
        return False
    try:
        return os.pathconf(folder, _CASE_SENSITIVE) == 0
    except OSError:
        return True  # as every Mac is delivered

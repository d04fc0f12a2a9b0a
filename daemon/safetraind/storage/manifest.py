"""A folder's manifest: the name, size and SHA-256 of every file in it, so that damage is noticed.

Written last, before the folder is renamed into place; a folder without one is incomplete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetraind.storage.documents import check_format
from safetraind.storage.durable import read_json, sync, write_json

NAME = "manifest.json"
FORMAT = 1


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the manifest of `folder` as it stands, durably, and bring its files to the disk too.

    `about` is kept beside the list of files. Raises OSError.
    """
    files = {
        file.relative_to(folder).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": sha256(file),
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != NAME
    }
    for name in files:
        with (folder / name).open("rb") as file:
            sync(file.fileno())
    write_json(folder / NAME, {"format": FORMAT, **about, "files": files})


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of `folder`, or None where there is none that can be read.

    Raises Incompatible for a format of a newer version.
    """
    manifest = read_json(folder / NAME)
    if not isinstance(manifest, dict):
        return None
    check_format(manifest, FORMAT, folder / NAME)
    return manifest if isinstance(manifest.get("files"), dict) else None


def damaged_files(folder: Path, *, hashes: bool = True) -> list[str] | None:
    """Return the files that are missing or not as the manifest says; None: there is no manifest.

    Without `hashes` only presence and size are compared, which takes microseconds a file.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    return [
        name
        for name, facts in manifest["files"].items()
        if not _matches(folder / name, facts, hashes)
    ]


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in pieces."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _matches(file: Path, facts: Mapping[str, Any], hashes: bool) -> bool:
    try:
        if not file.is_file() or file.stat().st_size != facts["bytes"]:
            return False
        return not hashes or sha256(file) == facts["sha256"]
    except (OSError, TypeError, KeyError, ValueError):  # the facts may be nonsense
        return False

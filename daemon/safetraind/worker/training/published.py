"""Deletes and verifies the published adapter, the folder `adapters/` in the output folder."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from safetraind.storage.manifest import read_manifest, sha256
from safetraind.worker.training import adapters


def unpublish(folder: Path) -> None:
    """Delete the adapter that was published in `folder`."""
    for name in (adapters.CONFIG, adapters.WEIGHTS):
        (folder / name).unlink(missing_ok=True)


def is_published(checkpoint: Path, folder: Path) -> bool:
    """Return whether `folder` holds the adapter of a checkpoint, as its manifest says, and it
    loads.
    """
    manifest = read_manifest(checkpoint) or {"files": {}}
    try:
        for name in (adapters.CONFIG, adapters.WEIGHTS):
            if sha256(folder / name) != manifest["files"][name]["sha256"]:
                return False
    except (OSError, KeyError, TypeError):
        return False
    return loads(folder)


def loads(folder: Path) -> bool:
    """Return whether `folder` holds weights whose header can be read. No array is read."""
    try:
        return bool(mx.load(str(folder / adapters.WEIGHTS)))
    except (OSError, RuntimeError, ValueError):
        return False

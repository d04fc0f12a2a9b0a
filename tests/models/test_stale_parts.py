"""What a killed download of the hub left behind is removed; what may be somebody's is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from safetraind.worker import hub


def test_only_parts_that_nobody_writes_any_more_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    blobs = tmp_path / "models--org--name" / "blobs"
    blobs.mkdir(parents=True)
    whole, stale, growing = (
        blobs / name for name in ("aa", "bb.1a2b3c4d.incomplete", "cc.5e6f7a8b.incomplete")
    )
    for file in (whole, stale, growing):
        file.write_bytes(b"x")
    long_ago = time.time() - 2 * 3600
    for file in (whole, stale):
        os.utime(file, (long_ago, long_ago))
    hub.remove_stale_parts("org/name")
    assert sorted(blobs.iterdir()) == [whole, growing]
    hub.remove_stale_parts("org/never-fetched")

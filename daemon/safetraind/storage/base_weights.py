"""The identity of the base weights on which a training began, to recognise a swapped base model.

A resumed adapter on another base would train on silently, or fail with an error about the data. The
weights are known by size and by a SHA-256 of samples that are spread evenly over each file: whole
files of many gigabytes would take minutes to read. A model that was copied or downloaded again is
the same; one that was trained on or quantized otherwise differs nearly everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

_SAMPLES = 64
_SAMPLE_BYTES = 64 << 10
_OTHERS = ("config.json", "tokenizer.json")


def facts(model: Path) -> dict[str, str]:
    """Return a checksum for each file of the model that decides what it computes.

    Raises OSError. A folder that is none, as a name of the hub, has no files.
    """
    files = [*sorted(model.glob("model*.safetensors")), *(model / name for name in _OTHERS)]
    return {file.name: _checksum(file) for file in files if file.is_file()}


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of the files that have changed; empty where nothing was recorded."""
    if not before:
        return []
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _checksum(file: Path) -> str:
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    step = max(_SAMPLE_BYTES, size // _SAMPLES)
    with file.open("rb") as content:
        for offset in range(0, size, step):
            content.seek(offset)
            digest.update(content.read(_SAMPLE_BYTES))
    return digest.hexdigest()

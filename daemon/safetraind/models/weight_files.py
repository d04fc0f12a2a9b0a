"""Finds the weight files that are missing in a model's folder, for mlx-lm.

mlx-lm reads every `model*.safetensors` and ignores the index. Here the index only shows which files
an interrupted download lacks: a folder that has all parameters is complete, whatever files its
index names.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

from safetraind.storage.durable import read_file

INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")
_MAX_HEADER = 100 << 20


def missing_weights(folder: Path) -> list[str]:
    """Return the names of missing files; empty if mlx-lm finds all parameters.

    Raises OSError where the folder cannot be read.
    """
    present = {file.name for file in folder.glob("model*.safetensors")}
    parameters = _indexed(folder)
    named = set(parameters.values())
    if not present:
        return sorted(named) or ["model.safetensors"]
    if not parameters:
        return _missing_shards(present)
    lacking = sorted(named - present)
    if not lacking or parameters.keys() <= _held(folder, present):
        return []
    return lacking


def _indexed(folder: Path) -> dict[str, str]:
    """Return parameter → file from the index; empty without a valid index."""
    try:
        index = json.loads(read_file(folder / INDEX).decode())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict):
        return {}
    names: dict[str, str] = {k: v for k, v in weights.items() if isinstance(v, str)}
    return names if len(names) == len(weights) else {}


def _missing_shards(present: set[str]) -> list[str]:
    """Return missing shards by the other names (1 of 2 without 2); none if a set is complete."""
    sets: dict[str, set[int]] = {}
    for name in present:
        shard = _SHARD.fullmatch(name)
        if shard is None:
            return []
        sets.setdefault(shard[2], set()).add(int(shard[1]))
    lacking = {
        total: [n for n in range(1, int(total) + 1) if n not in numbers][:100]
        for total, numbers in sets.items()
        if int(total) <= 100_000
    }
    if not all(lacking.values()):
        return []
    total, numbers = min(lacking.items(), key=lambda found: len(found[1]), default=("", []))
    return [f"model-{n:0{len(total)}d}-of-{total}.safetensors" for n in numbers]


def _held(folder: Path, names: set[str]) -> set[str]:
    """Return the parameters in the headers of the safetensors files of these names."""
    held: set[str] = set()
    for name in names:
        held |= _header(folder / name).keys()
    return held


def _header(file: Path) -> dict[str, Any]:
    """Return a safetensors header; empty if invalid, which loading then reports."""
    with file.open("rb") as content:
        start = content.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(_MAX_HEADER, file.stat().st_size):
            return {}
        try:
            header = json.loads(content.read(length))
        except (ValueError, RecursionError):
            return {}
    return header if isinstance(header, dict) else {}

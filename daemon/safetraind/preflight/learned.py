"""What probes measured, kept by machine, model and version, so that a second preflight is quick.

One small JSON file a key below the home's `learned`. A file that cannot be read is as good as
none; a probe writes it anew.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetraind.files.durable import read_json, write_json
from safetraind.preflight.facts import Facts

_FORMAT = 1
_MOST_MEASURES = 200


def key_of(facts: Facts) -> str:
    """The machine, the model's state and the versions that a measure holds for."""
    host = facts.host
    parts = [
        host.chip,
        host.architecture,
        host.memory_total,
        host.cpu_cores,
        facts.openblas,
        facts.compiler,
        facts.model.fingerprint,
        sorted((name, package.version) for name, package in facts.packages.items()),
        _FORMAT,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class Learned:
    """The measures of one key."""

    def __init__(self, folder: Path, key: str) -> None:
        self._file = folder / f"{key}.json"

    def recall(self) -> dict[str, Any] | None:
        """What a probe found: device, loaded, measures, and when; None where nothing is known."""
        found = read_json(self._file)
        if (
            isinstance(found, dict)
            and {"device", "loaded", "measures", "rehearsed"} <= found.keys()
        ):
            return found
        return None

    def keep(self, found: Mapping[str, Any]) -> None:
        """Adds what a probe found. The same setup measured again replaces the older measure."""
        known = self.recall() or {}
        kept = {"time": time.time(), **found}
        for kind in ("measures", "rehearsed"):
            setups = {_setup(m): m for m in [*known.get(kind, []), *found[kind]]}
            kept[kind] = list(setups.values())[-_MOST_MEASURES:]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._file, kept)


def _setup(measure: Mapping[str, Any]) -> str:
    names: Sequence[str] = ("settings", "rows", "width", "learned")
    return json.dumps([measure[name] for name in names], sort_keys=True)

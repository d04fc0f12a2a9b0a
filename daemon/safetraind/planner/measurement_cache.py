"""What probes measured and trainings took, kept by machine, model and version, so that a second
preflight is quick and does not recommend what died.

One small JSON file a key below the home's `learned`. A file that cannot be read is as good as
none; a probe writes it anew.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetrain_shared.codec import to_plain
from safetrain_shared.jobs import Plan
from safetrain_shared.paths import Home
from safetraind import host
from safetraind.batching import QUARTERS, in_quarters, padded
from safetraind.models.model_config import read_model
from safetraind.planner.facts import Facts
from safetraind.planner.memory_estimate import Step
from safetraind.planner.worker_requests import SHAPE, shape_of
from safetraind.storage.durable import read_json, write_json

_FORMAT = 3
_MOST_MEASURES = 200
_KINDS = ("measures", "died")
# What decides how much a step takes, beside our own code.
_DISTRIBUTIONS = ("safetrain", "mlx", "mlx-lm", "mlx-metal", "mlx-cpu", "mlx-cuda-12")


def key_of(facts: Facts) -> str:
    """The machine, the model's state and the versions that a measure holds for."""
    return _key(facts.host, facts.compiler, facts.openblas, facts.model.fingerprint)


def _key(machine: host.HostFacts, compiler: str, openblas: str, fingerprint: str) -> str:
    parts = [
        machine.chip,
        machine.architecture,
        machine.memory_total,
        machine.cpu_cores,
        openblas,
        compiler,
        fingerprint,
        [_version(name) for name in _DISTRIBUTIONS],
        _FORMAT,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class MeasurementCache:
    """What is known of one key."""

    def __init__(self, folder: Path, key: str) -> None:
        self._file = folder / f"{key}.json"

    def recall(self) -> dict[str, Any] | None:
        """What was found: measures and deaths, and where a probe ran its device and how the model
        loaded; None where nothing is known.
        """
        found = read_json(self._file)
        if isinstance(found, dict) and all(isinstance(found.get(kind), list) for kind in _KINDS):
            return found
        return None

    def keep(self, found: Mapping[str, Any]) -> None:
        """Adds what was found. The same setup measured again replaces the older measure.

        Raises OSError where it cannot be written.
        """
        known = self.recall() or {}
        kept = {**known, **found, "time": time.time()}
        for kind in _KINDS:
            setups = {_setup(m): m for m in [*known.get(kind, []), *found.get(kind, [])]}
            kept[kind] = list(setups.values())[-_MOST_MEASURES:]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._file, kept)


def note_death(home: Home, plan: Plan) -> None:
    """A training ran out of memory with `plan`: this setup, and anything heavier, is not planned
    again on this machine before there is a good deal more memory.

    Takes some milliseconds, on macOS some hundreds. Raises OSError where it cannot be written.
    """
    _note(home, plan, "died", {"peak": plan.memory_limit})


def note_success(home: Home, plan: Plan, peak: int, tokens_per_second: float) -> None:
    """A training came to its end with `plan`, which was not measured before: bytes of MLX's peak,
    and its speed, padding not counted. Time and errors as `note_death`.
    """
    seen = {"peak": peak, "tokens_per_second": tokens_per_second, "limit": plan.memory_limit}
    _note(home, plan, "measures", seen)


def _note(home: Home, plan: Plan, kind: str, seen: Mapping[str, Any]) -> None:
    if not plan.heaviest_width:
        return  # a plan of an older version
    model = read_model(plan.model_path, Path(plan.model_path))
    if not model.fingerprint:
        return  # it is gone
    key = _key(host.gather(), shutil.which("g++") or "", host.find_openblas(), model.fingerprint)
    setup = {"settings": to_plain(plan.settings), **shape_of(_step(plan))}
    MeasurementCache(home.learned, key).keep({kind: [{**setup, **seen}]})


def _step(plan: Plan) -> Step:
    """The heaviest step of a plan, which a back-off may have made smaller than it was planned."""
    rows, longest = plan.settings.batch_size, plan.settings.max_seq_length
    width = min(plan.heaviest_width, padded(longest - 1, plan.length_bucket))
    return Step(rows, width, in_quarters(round(QUARTERS * plan.heaviest_share), rows * width))


def _setup(measure: Mapping[str, Any]) -> str:
    return json.dumps([measure[name] for name in ("settings", *SHAPE)], sort_keys=True)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""

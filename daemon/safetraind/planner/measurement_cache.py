"""Measurements of probes and trainings, kept by machine, model and version.

A second preflight is quick, and does not recommend a setup that died.

One small JSON file a key below the home's `learned`. A file that cannot be read counts as missing,
and a probe writes it anew.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from safetrain_shared.jobs import Plan
from safetrain_shared.paths import Home
from safetraind import host
from safetraind.batching import QUARTERS, in_quarters, padded
from safetraind.models.model_config import ModelShape, read_model
from safetraind.planner.facts import Facts
from safetraind.storage import documents
from safetraind.worker_messages.probe_messages import Measure, ProbeResult, Step

_MOST_MEASURES = 200
# What decides how much a step takes, beside our own code.
_DISTRIBUTIONS = ("safetrain", "mlx", "mlx-lm", "mlx-metal", "mlx-cpu", "mlx-cuda-12")


def key_of(facts: Facts) -> str:
    """Return the key of a measure: the machine, the model's state and the versions it holds for."""
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
        Known.FORMAT,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Known:
    """The measurements under one key, their model, and the time of the last change, in seconds
    since the epoch.
    """

    FORMAT: ClassVar[int] = 5

    found: ProbeResult = field(default_factory=ProbeResult)
    model: str = ""
    shape: ModelShape | None = None
    time: float = 0.0


class MeasurementCache:
    """The measurements under one key."""

    def __init__(self, folder: Path, key: str) -> None:
        self._file = folder / f"{key}.json"

    def recall(self) -> ProbeResult | None:
        """Return the measures and deaths, the probe's device and how the model loaded; None where
        nothing is known.
        """
        known = documents.read_known(self._file, Known)
        return known.found if known else None

    def keep(self, found: ProbeResult, model: str = "", shape: ModelShape | None = None) -> None:
        """Add findings. The same setup measured again replaces the older measure.

        The failure of a model, and what was too slow, are not kept, since they may change. Raises
        OSError where it cannot be written.
        """
        known = documents.read_known(self._file, Known) or Known()
        merged = _merged(known.found, found)
        kept = Known(merged, model or known.model, shape or known.shape, time.time())
        self._file.parent.mkdir(parents=True, exist_ok=True)
        documents.write(self._file, kept)


def all_known(folder: Path) -> Iterator[Known]:
    """Yield the measurements under each key, in no order."""
    for file in folder.glob("*.json"):
        known = documents.read_known(file, Known)
        if known is not None:
            yield known


def _merged(known: ProbeResult, found: ProbeResult) -> ProbeResult:
    by_setup = {
        (measure.settings, measure.step, measure.died): measure
        for measure in (*known.measures, *found.measures)
    }
    loaded = found.loaded if found.loaded and found.loaded.cause is None else known.loaded
    return ProbeResult(
        device=found.device or known.device,
        loaded=loaded,
        splits_head=known.splits_head if found.splits_head is None else found.splits_head,
        unsupported=tuple(sorted({*known.unsupported, *found.unsupported})),
        measures=tuple(by_setup.values())[-_MOST_MEASURES:],
    )


def note_death(home: Home, plan: Plan) -> None:
    """Note that a training ran out of memory with `plan`.

    The setup, and any heavier one, is not planned again on this machine until much more memory is
    available.

    Takes some milliseconds, on macOS some hundreds. Raises OSError where it cannot be written.
    """
    _note(home, plan, plan.memory_limit, died=True)


def note_success(home: Home, plan: Plan, peak: int, tokens_per_second: float) -> None:
    """Note that a training completed with `plan`, which was not measured before.

    `peak` is MLX's, in bytes, and the speed does not count padding. Time and errors as in
    `note_death`.
    """
    _note(home, plan, peak, tokens_per_second, limit=plan.memory_limit)


def _note(
    home: Home,
    plan: Plan,
    peak: int,
    tokens_per_second: float = 0.0,
    *,
    died: bool = False,
    limit: int = 0,
) -> None:
    if not plan.heaviest_width:
        return  # a plan of an older version
    model = read_model(plan.model_path, Path(plan.model_path))
    if not model.fingerprint:
        return  # it is gone
    key = _key(host.gather(), shutil.which("g++") or "", host.find_openblas(), model.fingerprint)
    measure = Measure(plan.settings, _step(plan), peak, tokens_per_second, died=died, limit=limit)
    MeasurementCache(home.learned, key).keep(ProbeResult(measures=(measure,)))


def _step(plan: Plan) -> Step:
    """Return the heaviest step of a plan. A fallback may have made it smaller than planned."""
    rows, longest = plan.settings.batch_size, plan.settings.max_seq_length
    width = min(plan.heaviest_width, padded(longest - 1, plan.length_bucket))
    return Step(rows, width, in_quarters(round(QUARTERS * plan.heaviest_share), rows * width))


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""

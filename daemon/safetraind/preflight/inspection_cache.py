"""What the inspect worker found in training files, kept while they stay as they are.

A submit reads the files through; when the job's turn comes they need not be read again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetrain_shared.packages import PACKAGES
from safetraind.planner.worker_requests import Ended, OnProgress, Problems, Workers
from safetraind.storage.bounded_read import bounded

_MOST = 16
_AT_ONCE = 2  # each imports mlx-lm for the tokenizer, a few hundred megabytes
_OF_MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model")

Line = Mapping[str, Any]


@dataclass(slots=True)
class _Kept:
    ended: Ended
    problems: Problems


class InspectionCache:
    """Those of one daemon."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._turn = asyncio.Semaphore(_AT_ONCE)

    def through(self, workers: Workers) -> Remembering:
        """`workers`, but for inspections that were made before."""
        return Remembering(workers, self)

    async def inspect(self, workers: Workers, request: Line, tell: OnProgress) -> Ended:
        """As the worker would: its lines go to `tell`, those of problems even the second time."""
        async with self._turn:
            key = await bounded(str(request.get("model", "")), _key, request)
            kept = self._kept.get(key)
            if kept is not None:
                for problem in kept.problems.kept:
                    tell({"problem": problem})
                return kept.ended
            problems = Problems()

            def note(line: Line) -> None:
                problems.note(line)
                tell(line)

            ended = await workers.run_worker("inspect", request, lease=False, on_progress=note)
            if _is_whole(ended.result):
                self._kept[key] = _Kept(ended, problems)
                while len(self._kept) > _MOST:
                    del self._kept[next(iter(self._kept))]
            return ended


class Remembering:
    """Workers that make no inspection twice."""

    def __init__(self, workers: Workers, inspections: InspectionCache) -> None:
        self._workers = workers
        self._inspections = inspections
        self._problems = Problems()

    @property
    def problems(self) -> Sequence[Line]:
        """What the newest inspection has found so far."""
        return self._problems.kept

    @property
    def has_lease(self) -> bool:
        """Whether a worker that needs the GPU can be run."""
        return self._workers.has_lease

    async def run_worker(
        self,
        role: str,
        request: Mapping[str, Any],
        *,
        lease: bool,
        on_progress: OnProgress | None = None,
    ) -> Ended:
        """As `Workers.run_worker`."""
        if role != "inspect":
            return await self._workers.run_worker(
                role, request, lease=lease, on_progress=on_progress
            )
        self._problems = problems = Problems()

        def tell(line: Line) -> None:
            problems.note(line)
            if on_progress is not None:
                on_progress(line)

        return await self._inspections.inspect(self._workers, request, tell)


def _is_whole(result: Mapping[str, Any] | None) -> bool:
    """Whether nothing was missing that somebody may put right without touching the files."""
    if result is None or None in (result.get("train"), result.get("valid")):
        return False
    tokenizer = result.get("tokenizer") or {}
    packages = result.get("packages", {}).values()
    return tokenizer.get("loaded", True) and all(package["version"] for package in packages)


def _key(request: Line) -> str:
    """Changes with the request, the files, the tokenizer and the packages that read them."""
    folder = request.get("model")
    files = [request["train"], request["valid"]]
    files += [str(Path(folder) / name) for name in _OF_MODEL] if folder else []
    packages = [_version(package.distribution) for package in PACKAGES]
    return json.dumps([dict(request), [_state(file) for file in files], packages])


def _state(file: str) -> list[int]:
    try:
        found = Path(file).stat()
    except OSError:
        return []
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""

"""Results of the inspect worker, kept while the training files stay as they are.

A submit reads the files through; when the job's turn comes they need not be read again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from safetrain_shared.codec import to_plain
from safetrain_shared.findings import Finding
from safetrain_shared.packages import PACKAGES
from safetraind.preflight.inspection import Problems
from safetraind.storage.bounded_read import bounded
from safetraind.worker_messages.inspect_messages import (
    INSPECT,
    InspectLine,
    InspectRequest,
    InspectResult,
)
from safetraind.worker_messages.role import Line, Result, Role
from safetraind.worker_messages.worker_result import WorkerResult, Workers

_MOST = 16
_AT_ONCE = 2  # each imports mlx-lm for the tokenizer, a few hundred megabytes
_OF_MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model")

Ended = WorkerResult[InspectResult]
Tell = Callable[[InspectLine], None]


@dataclass(slots=True)
class _Kept:
    ended: Ended
    problems: Problems


class InspectionCache:
    """The inspections of one daemon."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._turn = asyncio.Semaphore(_AT_ONCE)

    def through(self, workers: Workers) -> CachingWorkers:
        """Return `workers` with this cache in front of their inspections."""
        return CachingWorkers(workers, self)

    async def inspect(self, workers: Workers, request: InspectRequest, tell: Tell) -> Ended:
        """Return the kept result of an equal inspection, or run a worker. `tell` takes the worker's
        lines; of a kept result, those of problems alone.
        """
        async with self._turn:
            key = await bounded(request.model, _key, request)
            kept = self._kept.get(key)
            if kept is not None:
                for problem in kept.problems.kept:
                    tell(InspectLine(problem=problem))
                return kept.ended
            problems = Problems()

            def note(line: InspectLine) -> None:
                problems.note(line)
                tell(line)

            ended = await workers.run_worker(INSPECT, request, lease=False, on_progress=note)
            if _is_whole(ended.answer):
                self._kept[key] = _Kept(ended, problems)
                while len(self._kept) > _MOST:
                    del self._kept[next(iter(self._kept))]
            return ended


class CachingWorkers:
    """Workers that repeat no inspection."""

    def __init__(self, workers: Workers, inspections: InspectionCache) -> None:
        self._workers = workers
        self._inspections = inspections
        self._problems = Problems()

    @property
    def problems(self) -> Sequence[Finding]:
        """The problems that the newest inspection has found so far."""
        return self._problems.kept

    @property
    def has_lease(self) -> bool:
        """Whether a worker that needs the GPU can be run."""
        return self._workers.has_lease

    async def run_worker(
        self,
        role: Role[Line, Result],
        request: Any,
        *,
        lease: bool,
        on_progress: Callable[[Line], None] | None = None,
    ) -> WorkerResult[Result]:
        """Run a worker as `Workers.run_worker` does; an inspection goes through the cache."""
        if role.name != INSPECT.name:
            return await self._workers.run_worker(
                role, request, lease=lease, on_progress=on_progress
            )
        self._problems = problems = Problems()

        def tell(line: InspectLine) -> None:
            problems.note(line)
            if on_progress is not None:
                on_progress(cast(Line, line))

        ended = await self._inspections.inspect(self._workers, request, tell)
        return cast(WorkerResult[Result], ended)


def _is_whole(result: object) -> bool:
    """Return whether the result is complete, so that nothing in it can change while the files stay
    the same.
    """
    if not isinstance(result, InspectResult) or None in (result.train, result.valid):
        return False
    loaded = result.tokenizer is None or result.tokenizer.loaded
    return loaded and all(package.version for package in result.packages.values())


def _key(request: InspectRequest) -> str:
    """Return a key that changes with the request, the files, the tokenizer and the packages that
    read them.
    """
    files = [request.train, request.valid, request.questions]
    files += [str(Path(request.model) / name) for name in _OF_MODEL] if request.model else []
    packages = [_version(package.distribution) for package in PACKAGES]
    return json.dumps([to_plain(request), [_state(file) for file in files], packages])


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

"""The end and the result of an ephemeral worker, and the protocol of those who start such
workers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol

from safetrain_shared.errors import SafetrainError
from safetraind.storage.run_folder import KeeperNote
from safetraind.worker_messages.role import Line, Result, Role


@dataclass(frozen=True, slots=True)
class WorkerResult(Generic[Result]):
    """The end of a worker. `exit`: its keeper's note. `answer`: its result, or the error that it
    reported; None where nothing is readable.

    `log`: the end of what it printed, for the daemon's log when something broke. `limit`: "time" or
    "memory" where it was killed for that.
    """

    exit: KeeperNote
    answer: Result | SafetrainError | None
    log: str = ""
    limit: str = ""

    @property
    def result(self) -> Result | None:
        """The result; None where there is none. Raises the error that the worker reported."""
        if isinstance(self.answer, SafetrainError):
            raise self.answer
        return self.answer

    @property
    def how(self) -> str:
        """The worker's end in a few words, for a log or a reason; "-" where nothing is known."""
        note = dataclasses.asdict(self.exit)
        names = ("code", "signal", "oom_kills", "footprint", "pressure")
        return ", ".join(f"{name} {note[name]}" for name in names if note[name]) or "-"


class Workers(Protocol):
    """Starts ephemeral workers: `safetraind.processes.ephemeral.EphemeralWorkers`."""

    @property
    def has_lease(self) -> bool:
        """Whether a worker that needs the GPU can be run."""

    async def run_worker(
        self,
        role: Role[Line, Result],
        request: Any,
        *,
        lease: bool,
        on_progress: Callable[[Line], None] | None = None,
    ) -> WorkerResult[Result]:
        """Run a worker to its end. `on_progress` takes its lines."""

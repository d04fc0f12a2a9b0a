"""Runs probes for one preflight, round by round, until nothing more could change the plan.

Each round is a process of its own: it may die of what it tries. `planner.next_probe` decides what a
round runs. All rounds together keep to a limit in time; what is too slow to be measured within it
is planned by what is known, with a wider margin.
"""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from collections.abc import AsyncGenerator

from safetrain_shared.findings import Finding, Status
from safetraind.worker_messages.probe_messages import (
    PROBE,
    Device,
    Loaded,
    Measure,
    ProbeLine,
    ProbeRequest,
    ProbeResult,
    Setup,
)
from safetraind.worker_messages.role import WorkerProgress
from safetraind.worker_messages.worker_result import WorkerResult, Workers

# Within the two minutes of a preflight; `--thorough` takes as long as it takes.
PROBE_SECONDS = 75.0
THOROUGH_SECONDS = 24 * 3600.0
# A worker ends by itself before its time is up, unless a single operation is stuck.
_GRACE_SECONDS = 10.0
_ORDINARY = range(1, 126)  # exit codes of a process that raised an exception; 139 is a SIGSEGV


class Round:
    """One probe: its findings, line by line, and its end."""

    def __init__(self) -> None:
        self.found = ProbeResult()
        self.ended: WorkerResult[ProbeResult] | None = None
        self._trying: Setup | None = None
        self._out_of_memory = False

    def note(self, line: ProbeLine) -> WorkerProgress | None:
        """Take in a line of the worker. Return its progress, if it holds any."""
        self._trying = None if line.measure else line.trying or self._trying
        self._out_of_memory = self._out_of_memory or bool(line.out_of_memory)
        self.found = self.found.plus(line)
        return line.progress

    @property
    def is_whole(self) -> bool:
        """Whether the worker came to its own end."""
        return self.ended is not None and self.ended.answer is not None

    @property
    def is_interrupted(self) -> bool:
        """Whether a user or the system ended the worker, which says nothing about its setup.

        A SIGKILL is somebody's where the kernel counts its own for memory, and counted none.
        """
        if self.ended is None or self.is_whole or self.ended.limit:
            return False
        note = self.ended.exit
        killed = note.signal == signal.SIGKILL and note.oom_kills == 0
        return killed or note.signal in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def judge_end(self, model: str, limit: int) -> None:
        """Add the findings that follow from the worker's end.

        Out of time: `slow`. Out of memory, or a death by a signal: the setup being tried does not
        fit under its memory limit, or `limit` bytes where it had none. Any other exception: the
        model fails with that reason.
        """
        if self.is_whole:
            return
        if self.ended is None:
            self._add(slow=self.found.slow or 0.0)
        elif self.found.device is None:
            self._add(device=Device("?", works=False, reason=self.ended.how))
        elif _raised(self.ended) and not self._out_of_memory:
            reason = _last_line(self.ended) or self.ended.how
            self._add(loaded=_failure("model.probe_failed", model, reason))
        elif self._trying is not None:
            tried = self._trying
            died = Measure(tried.settings, tried.step, tried.limit or limit, died=True)
            self._add(measures=(*self.found.measures, died))
        elif self.found.loaded is None and model:
            self._add(loaded=_failure("model.loading_died", model, self.ended.how))

    def _add(self, **found: Device | Loaded | float | tuple[Measure, ...]) -> None:
        self.found = dataclasses.replace(self.found, **found)  # type: ignore[arg-type]


async def run_round(
    workers: Workers, request: ProbeRequest, seconds: float
) -> AsyncGenerator[WorkerProgress | Round, None]:
    """Run one probe within `seconds`. Yield its progress, and last the round.

    A worker that does not end in time is killed, and its round has no `ended`.
    """
    lines: asyncio.Queue[ProbeLine | None] = asyncio.Queue()
    this = Round()
    work = asyncio.create_task(
        workers.run_worker(PROBE, request, lease=True, on_progress=lines.put_nowait)
    )
    work.add_done_callback(lambda _: lines.put_nowait(None))
    try:
        async with asyncio.timeout(seconds + _GRACE_SECONDS):
            while (line := await lines.get()) is not None:
                if progress := this.note(line):
                    yield progress
            this.ended = await work
    except TimeoutError:
        pass
    finally:
        work.cancel()
        await asyncio.wait({work})
    yield this


def _failure(code: str, model: str, reason: str) -> Loaded:
    args = {"path": model, "reason": reason}
    return Loaded(0.0, cause=Finding(code, Status.FAILED, blocks=True, args=args))


def _raised(ended: WorkerResult[ProbeResult]) -> bool:
    """Return whether the worker ended by an exception, and not by a signal or the kernel."""
    return ended.exit.code in _ORDINARY and not ended.exit.oom_kills


def _last_line(ended: WorkerResult[ProbeResult]) -> str:
    """Return the last line of the worker's log. Of a traceback, that is the exception."""
    lines = ended.log.strip().splitlines()
    return lines[-1][:200] if lines else ""

"""Runs probes for one preflight, round by round, until nothing more could change the plan.

Each round is a process of its own: it may die of what it tries. `planner.next_probe` decides what a
round runs. All rounds together keep to a limit in time; what is too slow to be measured within it
is planned by what is known, with a wider margin.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from safetrain_shared.codec import to_plain
from safetrain_shared.findings import Finding, Status
from safetraind.planner.worker_requests import Ended, Workers

# Within the two minutes of a preflight; `--thorough` takes as long as it takes.
PROBE_SECONDS = 75.0
THOROUGH_SECONDS = 24 * 3600.0
# A worker ends by itself before its time is up, unless a single operation is stuck.
_GRACE_SECONDS = 10.0
_ORDINARY = range(1, 126)  # exit codes of a process that raised an exception; 139 is a SIGSEGV

Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, and how much of it: 0 to 1, negative where nobody knows."""

    phase: str
    done: float = -1.0


class Round:
    """One probe: what was found, line by line, and how it ended."""

    def __init__(self) -> None:
        self.found: Found = {"measures": [], "died": []}
        self.trying: Mapping[str, Any] | None = None
        self.ended: Ended | None = None

    def note(self, line: Mapping[str, Any]) -> Progress | None:
        """Takes in a line of the worker; what it says of progress is returned."""
        if "phase" in line:
            return Progress(line["phase"], line.get("done", -1.0))
        for kind, value in line.items():
            if kind == "measures":
                self.found["measures"].append(value)
                self.trying = None
            elif kind == "trying":
                self.trying = value
            else:
                self.found[kind] = value
        return None

    @property
    def is_whole(self) -> bool:
        """Whether the worker came to its own end."""
        return self.ended is not None and self.ended.result is not None

    @property
    def is_interrupted(self) -> bool:
        """Whether somebody ended the worker, which tells nothing of what it tried.

        A SIGKILL is somebody's where the kernel counts its own for memory, and counted none.
        """
        if self.ended is None or self.is_whole or self.ended.limit:
            return False
        number = self.ended.exit.get("signal")
        killed = number == signal.SIGKILL and self.ended.exit.get("oom_kills") == 0
        return killed or number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def judge_end(self, model: str, limit: int) -> None:
        """Adds to what was found what the end of the worker tells.

        Out of time: `slow`. Out of memory, or a death by a signal: the setup that was being tried
        does not fit into `limit` bytes. Anything else that was raised: the model fails, and how.
        """
        if self.is_whole:
            return
        if self.ended is None:
            self.found.setdefault("slow", 0.0)
            return
        how = _how(self.ended)
        if "device" not in self.found:
            self.found["device"] = {"kind": "?", "works": False, "reason": how}
        elif _raised(self.ended) and not self.found.pop("out_of_memory", False):
            args = {"path": model, "reason": _last_words(self.ended) or how}
            self.found["failed"] = to_plain(
                Finding("model.probe_failed", Status.FAILED, True, args)
            )
        elif self.trying is not None:
            self.found["died"] = [{**self.trying, "peak": limit}]
        elif "loaded" not in self.found and model:
            args = {"path": model, "reason": how}
            self.found["failed"] = to_plain(
                Finding("model.loading_died", Status.FAILED, True, args)
            )


async def run_round(
    workers: Workers, request: Mapping[str, Any], seconds: float, role: str = "probe"
) -> AsyncGenerator[Progress | Round, None]:
    """Runs one probe within `seconds`: its progress as it comes, and last what came of it.

    A worker that does not end in time is killed, and its round has no `ended`.
    """
    lines: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()
    this = Round()
    work = asyncio.create_task(
        workers.run_worker(role, request, lease=True, on_progress=lines.put_nowait)
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


def _failure(code: str, model: str, reason: str) -> Any:
    args = {"path": model, "reason": reason}
    return to_plain(Finding(code, Status.FAILED, blocks=True, args=args))


def _raised(ended: Ended) -> bool:
    """Whether the worker ended by an exception, and not by a signal or the kernel."""
    code = ended.exit.get("code")
    return isinstance(code, int) and code in _ORDINARY and not ended.exit.get("oom_kill")


def _last_words(ended: Ended) -> str:
    """The last line of what it printed: of a traceback, the exception."""
    lines = str(getattr(ended, "log", "")).strip().splitlines()
    return lines[-1][:200] if lines else ""


def _how(ended: Ended) -> str:
    """How a worker ended that should have told more."""
    return ", ".join(f"{key} {value}" for key, value in ended.exit.items() if value) or "-"

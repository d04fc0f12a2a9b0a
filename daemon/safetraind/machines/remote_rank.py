"""One rank of a training that this daemon leads, on another machine: its folder here shows what
that machine's daemon says of it, so that it is judged and shown as a rank of this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetrain_proto.v1.machines_pb2 import (
    LendEvent,
    LendRequest,
    RankEnded,
    RankFile,
    RankGo,
    RankGranted,
    RankNews,
    RankStart,
)
from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.errors import EXIT_RANK, SafetrainError, Unreachable
from safetrain_shared.events import Outcome
from safetrain_shared.findings import Finding, Status
from safetrain_shared.paths import RunFolder, private
from safetrain_shared.printable import printable
from safetraind.machines.other_machine import OtherMachine
from safetraind.machines.rank_files import pieces
from safetraind.storage import documents
from safetraind.storage.bounded_read import bounded
from safetraind.storage.durable import write_text
from safetraind.storage.run_folder import Beat, KeeperNote

log = logging.getLogger(__name__)

ALIVE_SECONDS = 2.0
_GRANT_SECONDS = 300.0  # for the checkpoint on its way, and the checks there
_MOST_LOG = 1 << 20  # bytes kept of its log
T = TypeVar("T")


class RemoteRank:
    """The call that runs it, from the first message to the last."""

    def __init__(self, machine: OtherMachine) -> None:
        self.machine, self.number = machine, 0
        self.listens = False
        self.outcome: Outcome | None = None
        self.note: KeeperNote | None = None
        self.lost: SafetrainError | None = None  # the call's end before the rank's
        self._run = RunFolder(Path())
        self._to_send: asyncio.Queue[LendRequest] = asyncio.Queue(maxsize=4)
        self._call: Any = None
        self._events: Any = None
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The machine's name."""
        return self.machine.host.name

    @property
    def over(self) -> bool:
        """Whether nothing more comes from it."""
        return self._task is not None and self._task.done()

    async def ask(self, start: RankStart, output: Path, files: Sequence[RankFile]) -> RankGranted:
        """Ask the machine for its GPU, and send what the rank resumes from. Return its ports.

        Raises what the machine refuses it for.
        """
        self._call = self.machine.machines.Lend(self._requests())
        self._events = aiter(self._call)
        sending = asyncio.ensure_future(self._send(start, output, files))
        try:
            with self.machine.errors():
                async with asyncio.timeout(_GRANT_SECONDS):
                    event = await anext(self._events, None)
        except TimeoutError:
            raise Unreachable("machines.unreachable", machine=self.name, reason="timeout") from None
        finally:
            sending.cancel()
        granted = event.granted if isinstance(event, LendEvent) else RankGranted()
        if not all(0 < port < 1 << 16 for port in (granted.port, granted.next_port)):
            raise Unreachable("machines.unreachable", machine=self.name, reason="EOF")
        return granted

    def place(self, number: int, run: RunFolder) -> None:
        """Make it rank `number`, whose folder on this machine is `run`. Raises OSError."""
        self.number, self._run = number, run
        private(run.root, parents=True)
        for stale in (run.exit, run.heartbeat):
            stale.unlink(missing_ok=True)
        write_text(run.machine, self.name)

    async def go(self, addresses: Sequence[str], devices: str = "") -> None:
        """Let the rank start, and follow it from now on. See `RankGo`."""
        go = RankGo(addresses=addresses, rank=self.number, devices=devices)
        await self._to_send.put(LendRequest(go=go))
        self._task = asyncio.ensure_future(self._follow())

    async def settle(self, seconds: float) -> None:
        """Wait until the rank has ended, for at most `seconds`."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=seconds)

    async def close(self) -> None:
        """End the call, and with it the rank."""
        if self._call is not None:
            self._call.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.machine.close()

    def trouble(self) -> Finding | None:
        """Return the finding on an end that was not in order; None for any other, and for a rank
        that left because another one was gone.
        """
        if self.lost is not None:
            args = {"machine": self.name, "reason": _reason(self.lost)}
            return Finding("job.machine_lost", Status.WARNING, args=args)
        note = self.note or KeeperNote()
        if not self.over or self.left_in_order or note.code == EXIT_RANK:
            return None
        where: dict[str, Any] = {"machine": self.name, "rank": self.number}
        if note.signal:
            where["signal"] = note.signal
            return Finding("job.machine_rank_killed", Status.WARNING, args=where)
        where |= {"code": note.code, "log": str(self._run.log)}
        return Finding("job.machine_rank_ended", Status.WARNING, args=where)

    @property
    def left_in_order(self) -> bool:
        """Whether the rank ended because there was nothing left to do."""
        return self.outcome is not None and self.outcome.outcome == "succeeded"

    async def _requests(self) -> AsyncIterator[LendRequest]:
        """Yield what is to be sent, and signs of life in between."""
        while True:
            try:
                async with asyncio.timeout(ALIVE_SECONDS):
                    request = await self._to_send.get()
            except TimeoutError:
                request = LendRequest(alive=True)
            yield request

    async def _send(self, start: RankStart, output: Path, files: Sequence[RankFile]) -> None:
        await self._to_send.put(LendRequest(start=start))
        content = pieces(output, files)
        while (data := await bounded(output, next, content, None)) is not None:
            await self._to_send.put(LendRequest(data=data))

    async def _follow(self) -> None:
        try:
            with self.machine.errors():
                async for event in self._events:
                    self._take(event)
                    if event.HasField("ended"):
                        return
            self.lost = Unreachable("machines.unreachable", machine=self.name, reason="EOF")
        except SafetrainError as error:
            self.lost = error
        except Exception as error:
            log.warning("rank %d on %s", self.number, self.name, exc_info=True)
            self.lost = Unreachable("machines.unreachable", machine=self.name, reason=str(error))

    def _take(self, event: LendEvent) -> None:
        if event.HasField("news"):
            with contextlib.suppress(OSError):  # a full disk here shows less
                self._take_news(event.news)
        elif event.HasField("ended"):
            self._take_end(event.ended)

    def _take_news(self, news: RankNews) -> None:
        self.listens = self.listens or news.listens
        beat = _read(news.beat, Beat)
        if beat is not None:
            mine = dataclasses.replace(beat, time=time.monotonic() - max(0.0, news.age))
            text = json.dumps({"format": Beat.FORMAT, **to_plain(mine)})
            write_text(self._run.heartbeat, text, synced=False)
        if news.log and (not self._run.log.exists() or self._run.log.stat().st_size < _MOST_LOG):
            with self._run.log.open("a", encoding="utf-8") as file:
                file.write(news.log)

    def _take_end(self, ended: RankEnded) -> None:
        self.note, self.outcome = _read(ended.note, KeeperNote), _read(ended.outcome, Outcome)
        with contextlib.suppress(OSError):
            if self.note is not None:
                self.note = dataclasses.replace(self.note, peer=-1)  # no rank of that machine
                documents.write(self._run.exit, self.note)


def _read(text: str, cls: type[T]) -> T | None:
    """Return what another machine says; None where it is nothing of the kind."""
    try:
        return from_plain(json.loads(text), cls) if text else None
    except (ValueError, RecursionError):
        return None


def _reason(error: SafetrainError) -> str:
    return printable(str(error.args_by_name.get("reason", error.code)))

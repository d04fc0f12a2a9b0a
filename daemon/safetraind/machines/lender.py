"""Lends this machine's GPU to a training that another daemon leads, and runs a rank of it here.

The rank lives as long as the leader's call: where that ends, falls silent or is cut off, it is
killed, and the lease is free; where this daemon ends, the rank's keeper does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from safetrain_proto.v1.jobs_pb2 import LentRank
from safetrain_proto.v1.machines_pb2 import (
    LendEvent,
    LendRequest,
    RankEnded,
    RankFitness,
    RankGo,
    RankGranted,
    RankNews,
    RankStart,
    RankTerms,
)
from safetrain_shared.codec import to_plain
from safetrain_shared.errors import Busy, InvalidInput, NotFound
from safetrain_shared.events import Outcome
from safetrain_shared.paths import Home, RunFolder
from safetraind.machines.rank_files import SILENT_SECONDS, heard, receive_files
from safetraind.machines.terms import Terms, check, own_plan, read_terms
from safetraind.models.registry import Models
from safetraind.preflight.job_preflight import located
from safetraind.processes.ephemeral import fresh_folder
from safetraind.processes.locks import try_lock
from safetraind.processes.rank_links import free_ports, lent_link, listens
from safetraind.processes.supervisor import (
    Supervisor,
    Worker,
    kill_workers,
    workers_of,
    write_launch,
)
from safetraind.storage import documents, event_file, uploads
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.storage.durable import write_text
from safetraind.storage.run_folder import Beat, KeeperNote

log = logging.getLogger(__name__)

ROLE = "rank"
GO_SECONDS = 300.0  # for the other machines to be ready
FREE_SECONDS = 10.0  # for the GPU to become free
_NEWS_SECONDS = 0.5
_MOST_LOG = 64 << 10  # bytes of the log in one message
Borrow = Callable[[], Awaitable[int | None]]  # a descriptor that holds the lease


@dataclasses.dataclass(frozen=True, slots=True)
class Lent:
    """The rank that runs here: whose training it is part of, its folder, since when (UTC)."""

    terms: Terms
    run: RunFolder
    since: float


class RankLender:
    """Answers the daemons that lead."""

    def __init__(
        self, home: Home, models: Models, supervisor: Supervisor, device: str, borrow: Borrow
    ) -> None:
        """`borrow` returns None where the GPU is in use."""
        self._home, self._models, self._supervisor = home, models, supervisor
        self._device, self._borrow = device, borrow
        self._lent: Lent | None = None

    def lent(self) -> LentRank | None:
        """Return the rank to which this machine lends its GPU now, and how far it is."""
        if self._lent is None:
            return None
        beat = documents.read_known(self._lent.run.heartbeat, Beat)
        return LentRank(
            training=self._lent.terms.document.spec.name,
            leader=self._lent.terms.leader_name,
            step=beat.step if beat is not None else 0,
            since=self._lent.since,
        )

    async def check(self, message: RankTerms, *, busy: bool) -> RankFitness:
        """Return what a rank could have here. Raises as `terms.check`, and NotFound without the
        model.
        """
        terms = read_terms(message)
        budget = await bounded(
            terms.document.spec.model,
            lambda: check(terms, self._home, self._model(terms)),
            seconds=SLOW_SECONDS,
        )
        return RankFitness(device=self._device, memory=budget.mlx, busy=busy)

    async def lend(self, requests: AsyncIterator[LendRequest]) -> AsyncGenerator[LendEvent, None]:
        """Run a rank, and tell of it until it has ended.

        Raises what `check` raises, Busy where the GPU is in use, and InvalidInput for a call that
        keeps to no order.
        """
        start = (await _next(requests, "start")).start
        terms = read_terms(start.terms)
        lease = await self._lease()
        run, worker = fresh_folder(self._home, ROLE), None
        self._lent = Lent(terms, run, time.time())
        try:
            await self._fill(run, start, terms, requests)
            port, next_port = free_ports(2)
            yield LendEvent(granted=RankGranted(port=port, next_port=next_port))
            go = (await _next(requests, "go")).go
            worker = await self._started(run, go, lease)
            log.info("rank %d of another machine's training begins", go.rank)
            async with aclosing(_told(run, worker, port, _Leader(requests))) as told:
                async for event in told:
                    yield event
        finally:
            self._lent = None
            await asyncio.shield(_end(run, worker, lease))  # also where the call is cancelled

    async def _lease(self) -> int:
        """Return a descriptor that holds the lease. Raises Busy.

        The rank of the attempt before may still be ending.
        """
        for _ in range(round(FREE_SECONDS / _NEWS_SECONDS)):
            lease = await self._borrow()
            if lease is not None:
                return lease
            await asyncio.sleep(_NEWS_SECONDS)
        raise Busy("machines.busy", machine="")

    def _model(self, terms: Terms) -> Path:
        """Return the model's folder here. Raises NotFound where it is not here."""
        name = terms.document.spec.model
        try:
            folder = located(self._models.resolve(name))
        except (NotFound, InvalidInput):
            folder = None
        if folder is None:
            raise NotFound("machines.no_model", machine="", name=name)
        return folder

    async def _fill(
        self,
        run: RunFolder,
        start: RankStart,
        terms: Terms,
        requests: AsyncIterator[LendRequest],
    ) -> None:
        """Give the rank's folder the job, the plan and what it resumes from, as this machine has
        them.
        """
        model = self._model(terms)
        budget = await bounded(
            run.root, lambda: check(terms, self._home, model), seconds=SLOW_SECONDS
        )
        if terms.plan is None:
            raise InvalidInput("request.malformed", reason="plan")
        output = run.root / "output"
        await receive_files(output, start.files, requests)
        spec = dataclasses.replace(terms.document.spec, output=str(output), **self._data(terms))
        documents.write(run.spec, dataclasses.replace(terms.document, spec=spec))
        documents.write(run.plan, own_plan(terms.plan, model, budget))
        write_launch(run, ROLE, start.attempt, 0)

    def _data(self, terms: Terms) -> dict[str, Any]:
        """Return the paths of the training's files, which the leader has sent before."""
        found: dict[str, Any] = {}
        for part, file in terms.document.data.items():
            name = Path(file.path).name
            sent = uploads.upload(self._home, file.sha256, file.bytes, name)
            if part not in ("train", "valid", "start_adapter") or not sent.is_whole:
                raise InvalidInput("files.not_whole", name=name)
            found[part] = str(sent.path)
        return found

    async def _started(self, run: RunFolder, go: RankGo, lease: int) -> Worker:
        lock = try_lock(run.lock)
        assert lock is not None  # the folder is new
        addresses = json.dumps([[address] for address in go.addresses])
        write_text(run.hosts, go.devices or addresses)
        coordinator = go.addresses[0] if go.devices and go.addresses else ""
        link = lent_link(self._home, run, go.rank, coordinator)
        try:
            return await self._supervisor.start(run, ROLE, lock=lock, lease=lease, link=link)
        finally:
            os.close(lock)


async def _end(run: RunFolder, worker: Worker | None, lease: int) -> None:
    """End the rank, whatever has been stopped of it, and free the GPU."""
    try:
        if worker is not None:
            kill_workers(run)
            await worker.ended()
            log.info("a rank of another machine's training has ended")
    finally:
        os.close(lease)
        shutil.rmtree(run.root, ignore_errors=True)


class _Leader:
    """Reads the leader's signs of life."""

    def __init__(self, requests: AsyncIterator[LendRequest]) -> None:
        self._heard = time.monotonic()
        self._task = asyncio.ensure_future(self._read(requests))

    @property
    def gone(self) -> bool:
        """Whether the leader has ended its call, or is silent for too long."""
        return self._task.done() or time.monotonic() - self._heard > SILENT_SECONDS

    def close(self) -> None:
        """Stop reading."""
        self._task.cancel()

    async def _read(self, requests: AsyncIterator[LendRequest]) -> None:
        async for _ in requests:
            self._heard = time.monotonic()


async def _told(
    run: RunFolder, worker: Worker, port: int, leader: _Leader
) -> AsyncGenerator[LendEvent, None]:
    """Yield news of the rank, and last how it ended; nothing more once the leader is gone."""
    ended = asyncio.ensure_future(worker.ended())
    news = _News(run, port)
    try:
        while not ended.done():
            await asyncio.wait({ended}, timeout=_NEWS_SECONDS)
            if leader.gone:
                log.warning("the machine that leads a training is gone: its rank here is ended")
                return
            yield LendEvent(news=news.read())
        yield LendEvent(news=news.read())
        yield LendEvent(ended=_ended(run))
    finally:
        ended.cancel()
        leader.close()


class _News:
    """What is new in a rank's folder."""

    def __init__(self, run: RunFolder, port: int) -> None:
        self._run, self._port = run, port
        self._listens = False
        self._offset = 0

    def read(self) -> RankNews:
        """Return it, with what was added to the log since the last time."""
        beat = documents.read_known(self._run.heartbeat, Beat)
        if not self._listens:
            self._listens = listens(workers_of(self._run), self._port)
        return RankNews(
            beat=json.dumps(to_plain(beat)) if beat is not None else "",
            age=time.monotonic() - beat.time if beat is not None else 0.0,
            listens=self._listens,
            log=self._log(),
        )

    def _log(self) -> str:
        with contextlib.suppress(OSError), self._run.log.open("rb") as file:
            file.seek(self._offset)
            added = file.read(_MOST_LOG)
            self._offset = file.tell()
            return added.decode("utf-8", "replace")
        return ""


def _ended(run: RunFolder) -> RankEnded:
    note, outcome = documents.read_known(run.exit, KeeperNote), None
    for read in event_file.read(run.events):
        outcome = read.event.body if isinstance(read.event.body, Outcome) else outcome
    return RankEnded(
        note=json.dumps(to_plain(note)) if note is not None else "",
        outcome=json.dumps(to_plain(outcome)) if outcome is not None else "",
    )


async def _next(requests: AsyncIterator[LendRequest], kind: str) -> LendRequest:
    """Return the leader's next message but for its signs of life. Raises InvalidInput where it is
    of another kind, or does not come.
    """
    deadline = time.monotonic() + GO_SECONDS
    while time.monotonic() < deadline and (request := await heard(requests)) is not None:
        if request.WhichOneof("body") == kind:
            return request
        if request.WhichOneof("body") != "alive":
            break
    raise InvalidInput("request.malformed", reason=kind)

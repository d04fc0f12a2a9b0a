"""The machines of a training that this daemon leads, for one attempt: asked, joined, followed and
let go together.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetrain_proto.v1.machines_pb2 import RankFitness, RankGranted, RankStart
from safetrain_shared.errors import InvalidInput, SafetrainError, Unreachable
from safetrain_shared.events import Outcome
from safetrain_shared.findings import Finding, Status, finding_of
from safetrain_shared.jobs import Plan
from safetrain_shared.paths import Home, RunFolder
from safetrain_shared.remote import host_list
from safetrain_shared.remote.host_list import Host
from safetraind.machines.other_machine import OtherMachine
from safetraind.machines.rank_files import newest_checkpoint
from safetraind.machines.remote_rank import RemoteRank
from safetraind.machines.ring_way import Forward, RingWay, open_way
from safetraind.machines.terms import own_terms
from safetraind.processes.rank_links import free_ports, listens
from safetraind.processes.supervisor import kill_workers, workers_of
from safetraind.scheduler.worker_end import AWAY
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.storage.durable import write_text
from safetraind.storage.job_document import JobDocument

log = logging.getLogger(__name__)

JOIN_SECONDS = 120.0  # until a rank listens
END_SECONDS = 10.0  # for the others to end after rank 0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is to be trained together. `output`: the job's folder, with its checkpoints."""

    run: RunFolder
    document: JobDocument
    plan: Plan
    number: int
    output: Path


@dataclass(frozen=True, slots=True)
class _Way:
    """Ports to be joined with a rank's machine, see `open_way`."""

    rank: RemoteRank
    there: Sequence[Forward]
    back: Sequence[Forward]


async def fitness(
    document: JobDocument, model: Path, plan: Plan | None, home: Home
) -> list[RankFitness]:
    """Return what each machine that a job names could lend. Raises the refusal of a machine."""
    hosts = hosts_of(document)
    terms = await bounded(model, own_terms, document, plan, model, home, seconds=SLOW_SECONDS)

    async def ask(host: Host) -> RankFitness:
        machine = OtherMachine(host)
        try:
            await machine.open()
            return await machine.check(terms)
        finally:
            await machine.close()

    return list(await asyncio.gather(*map(ask, hosts)))


def hosts_of(document: JobDocument) -> list[Host]:
    """Return the hosts of the machines that a job names, from this user's own list and ssh's.

    Raises InvalidInput for a name that cannot be one, for one that is named twice, and for several
    ranks a machine.
    """
    settings = document.spec.complete_settings
    if len(set(settings.machines)) < len(settings.machines):
        raise InvalidInput("machines.twice", names=", ".join(settings.machines))
    if settings.machines and settings.ranks > 1:
        raise InvalidInput("machines.with_ranks")
    return [host_list.find(name) for name in settings.machines]


class Party:
    """The other machines of one attempt."""

    def __init__(self, attempt: Attempt, ranks: Sequence[RemoteRank]) -> None:
        self._attempt = attempt
        self._ranks = ranks  # those that take part, by their numbers from 1 on
        self.missing: list[str] = []
        self._ways: list[tuple[RemoteRank, RingWay]] = []
        self._last_way: _Way | None = None
        self._port = 0
        self._addresses: list[list[str]] = []
        self.found: Finding | None = None  # what ended another machine's rank, and so all
        self.found_late: Finding | None = None  # the same, where rank 0 noticed it first

    @property
    def alone(self) -> bool:
        """Whether no other machine takes part."""
        return not self._ranks

    async def gather(self) -> None:
        """Ask each machine for its GPU, and join them. Raises the refusal of a machine, and
        Unreachable.

        Where the job allows fewer machines and has begun, it goes on without those that are away.
        """
        attempt = self._attempt
        terms = await bounded(
            attempt.plan.model_path,
            own_terms,
            attempt.document,
            attempt.plan,
            Path(attempt.plan.model_path),
            Home(attempt.run.root.parent.parent),
            seconds=SLOW_SECONDS,
        )
        files = await bounded(
            attempt.output, newest_checkpoint, attempt.output, seconds=SLOW_SECONDS
        )

        async def ask(rank: RemoteRank) -> RankGranted:
            await rank.machine.open()
            for file in attempt.document.data.values():
                await rank.machine.send(file)
            start = RankStart(terms=terms, attempt=attempt.number, files=files)
            return await rank.ask(start, attempt.output, files)

        answers = await asyncio.gather(*map(ask, self._ranks), return_exceptions=True)
        dispensable = bool(files) and attempt.plan.settings.fewer_machines
        granted = await self._present(answers, dispensable=dispensable)
        for number, rank in enumerate(self._ranks, 1):
            rank.place(number, attempt.run.rank(number))
        for number in range(len(self._ranks) + 1, len(answers) + 1):
            attempt.run.rank(number).machine.unlink(missing_ok=True)
        if granted:
            await self._join(granted)

    async def _present(
        self, answers: Sequence[RankGranted | BaseException], *, dispensable: bool
    ) -> list[RankGranted]:
        """Keep the ranks whose machines have agreed; return what they grant. Raises the refusal of
        a machine, unless it is away and `dispensable`.
        """
        granted, present = [], []
        for rank, answer in zip(self._ranks, answers, strict=True):
            if isinstance(answer, RankGranted):
                granted.append(answer)
                present.append(rank)
            elif dispensable and isinstance(answer, SafetrainError) and answer.code in AWAY:
                log.warning("going on without %s: %s", rank.name, answer)
                self.missing.append(rank.name)
                await rank.close()
            else:
                raise answer
        self._ranks = present
        return granted

    async def _join(self, granted: Sequence[RankGranted]) -> None:
        """Open the ring's ways, all but the port by which the last rank is reached. Rank 0 reaches
        rank 1 by a port here, each other rank the next one by a port on its own machine, which
        leads here.
        """
        self._port, *ports = free_ports(len(granted) + 1)
        after = [*ports[1:], self._port]  # where the next rank is reached here
        ways = [
            _Way(rank, [(port, there.port)], [(there.next_port, next_here)])
            for rank, there, port, next_here in zip(self._ranks, granted, ports, after, strict=True)
        ]
        *first, self._last_way = _in_order(ways)
        opened = await asyncio.gather(*map(self._open, first), return_exceptions=True)
        for failure in opened:
            if failure is not None:
                raise failure
        size = len(granted) + 1
        self._addresses = [_ring(size, 0, self._port, ports[0])] + [
            _ring(size, rank.number, there.port, there.next_port)
            for rank, there in zip(self._ranks, granted, strict=True)
        ]
        hosts = [[address] for address in self._addresses[0]]
        write_text(self._attempt.run.hosts, json.dumps(hosts))

    async def _open(self, way: _Way) -> None:
        opened = await open_way(way.rank.machine.host, way.there, way.back)
        self._ways.append((way.rank, opened))

    async def start(self, ended: asyncio.Future[None]) -> None:
        """Start the ranks, now that rank 0 is being started, the last one when all others listen,
        and let it be reached when it does: see `_in_order`. Where one never listens, all are ended.
        `ended`: of rank 0.
        """
        try:
            await self._start(ended)
        except SafetrainError as error:
            self.found = finding_of(error, Status.WARNING)

    async def _start(self, ended: asyncio.Future[None]) -> None:
        run = self._attempt.run
        if self.alone:
            return
        await self._until(lambda: listens(workers_of(run), self._port), ended, "rank 0")
        *others, last = self._ranks
        for rank in others:
            await rank.go(self._addresses[rank.number])
        for rank in others:
            await self._until(lambda rank=rank: rank.listens or rank.over, ended, rank.name)  # type: ignore[misc]
        await last.go(self._addresses[last.number])
        await self._until(lambda: last.listens or last.over, ended, last.name)
        if self._last_way is not None and not ended.done():
            await self._open(self._last_way)

    async def _until(
        self, condition: Callable[[], bool], ended: asyncio.Future[None], name: str
    ) -> None:
        deadline = asyncio.get_running_loop().time() + JOIN_SECONDS
        while not condition():
            if ended.done():
                return
            if asyncio.get_running_loop().time() > deadline:
                raise Unreachable("machines.unreachable", machine=name, reason="timeout")
            await asyncio.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Kill rank 0 where another machine's rank has ended before it, or its link is gone."""
        self.found = self.found or next(self._troubles(), None)
        if self.found or any(rank.over and not rank.left_in_order for rank in self._ranks):
            kill_workers(self._attempt.run)

    def _troubles(self) -> Iterator[Finding]:
        for rank, way in self._ways:
            if way.lost and not rank.over:
                args = {"machine": rank.name, "reason": way.reason}
                yield Finding("job.machine_lost", Status.WARNING, args=args)
        for rank in self._ranks:
            if found := rank.trouble():
                yield found

    def failure(self) -> Outcome | None:
        """Return the failure with which another machine's rank ended by itself."""
        outcomes = [rank.outcome for rank in self._ranks if rank.outcome is not None]
        return next((one for one in outcomes if one.outcome == "failed"), None)

    async def close(self, *, wait: bool) -> None:
        """Let all machines go. `wait`: for their ranks to end by themselves first."""
        if wait:
            await asyncio.gather(*(rank.settle(END_SECONDS) for rank in self._ranks))
        self.found_late = next(self._troubles(), None)
        await asyncio.gather(*(rank.close() for rank in self._ranks), return_exceptions=True)
        await asyncio.gather(*(way.close() for _, way in self._ways), return_exceptions=True)


def _in_order(ways: Sequence[_Way]) -> list[_Way]:
    """Return what to open, last that by which the rank before it reaches the last rank.

    In MLX's ring each rank but the last listens, and looks for the next one when it was found; the
    last one looks for rank 0 first, which begins the round, and then listens. A port that ssh
    forwards takes any connection, and drops it where nobody listens at its end; MLX tries again,
    for half a minute, only where the port itself refuses. So the port by which the last rank is
    reached is opened once that one listens.
    """
    *others, last = ways
    if not others:
        return [replace(last, there=()), replace(last, back=())]
    *others, before = others
    return [*others, last, replace(before, back=()), replace(before, there=())]


def party_of(attempt: Attempt) -> Party:
    """Return the other machines of an attempt, not asked yet. Raises InvalidInput."""
    return Party(attempt, [RemoteRank(OtherMachine(host)) for host in hosts_of(attempt.document)])


def _ring(size: int, rank: int, own: int, following: int) -> list[str]:
    """Return an address for each rank as MLX reads them on one machine. It uses two of them: its
    own, at which it listens, and the next rank's, which stands in all other places too.
    """
    addresses = [f"127.0.0.1:{following}"] * size
    addresses[rank] = f"127.0.0.1:{own}"
    return addresses

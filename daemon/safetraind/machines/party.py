"""The machines of a training that this daemon leads, for one attempt: asked, joined, followed and
let go together.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetrain_proto.v1.machines_pb2 import RankFitness, RankGranted, RankStart, RankTerms
from safetrain_shared.errors import InvalidInput, SafetrainError, Unreachable
from safetrain_shared.events import Outcome
from safetrain_shared.findings import Finding, Status, finding_of
from safetrain_shared.jobs import Plan
from safetrain_shared.paths import Home, RunFolder
from safetrain_shared.remote import host_list, rdma
from safetrain_shared.remote.host_list import Host
from safetrain_shared.remote.rdma import Devices
from safetraind.machines.layout import Layout, Way, by_rdma, by_ring
from safetraind.machines.other_machine import OtherMachine
from safetraind.machines.rank_files import newest_checkpoint
from safetraind.machines.remote_rank import RemoteRank
from safetraind.machines.ring_way import RingWay, open_way
from safetraind.machines.terms import check_rdma, own_terms
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


async def fitness(
    document: JobDocument, model: Path, plan: Plan | None, home: Home
) -> list[RankFitness]:
    """Return what each machine that a job names could lend. Raises the refusal of a machine."""
    hosts = hosts_of(document)
    terms = await bounded(model, own_terms, document, plan, model, home, seconds=SLOW_SECONDS)
    devices = await _devices(hosts)

    async def ask(rank: int, host: Host) -> RankFitness:
        machine = OtherMachine(host)
        try:
            await machine.open()
            return await machine.check(_with_devices(terms, devices, rank))
        finally:
            await machine.close()

    return list(await asyncio.gather(*(ask(rank, host) for rank, host in enumerate(hosts, 1))))


async def _devices(hosts: Sequence[Host]) -> Devices | None:
    """Return the RDMA devices between this machine and the others; None where they make a ring.
    Raises InvalidInput for a damaged host file, and Blocked where this machine lacks a device.
    """
    devices = rdma.between(hosts) if hosts else None
    if devices is not None:
        own, machine = filter(None, devices[0]), platform.node()
        await bounded("ibv_devices", check_rdma, own, machine, seconds=SLOW_SECONDS)
    return devices


def _with_devices(terms: RankTerms, devices: Devices | None, rank: int) -> RankTerms:
    """Return the terms for the machine of a rank, with the devices that it must have."""
    if devices is None:
        return terms
    own = RankTerms(rdma=filter(None, devices[rank]))
    own.MergeFrom(terms)
    return own


def _of_some(devices: Devices | None, ranks: Sequence[int]) -> Devices | None:
    """Return the devices between some of the ranks."""
    if devices is None:
        return None
    return [[devices[one][other] for other in ranks] for one in ranks]


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
        self._layout = Layout()
        self.found: Finding | None = None  # what ended another machine's rank, and so all
        self.found_late: Finding | None = None  # the same, where rank 0 noticed it first

    @property
    def alone(self) -> bool:
        """Whether no other machine takes part."""
        return not self._ranks

    @property
    def coordinator(self) -> str:
        """See `Layout.coordinator`."""
        return self._layout.coordinator

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

        all_ranks = self._ranks
        devices = await _devices([rank.machine.host for rank in all_ranks])

        async def ask(number: int, rank: RemoteRank) -> RankGranted:
            await rank.machine.open()
            for file in attempt.document.data.values():
                await rank.machine.send(file)
            own = _with_devices(terms, devices, number)
            start = RankStart(terms=own, attempt=attempt.number, files=files)
            return await rank.ask(start, attempt.output, files)

        asked = (ask(number, rank) for number, rank in enumerate(self._ranks, 1))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        dispensable = bool(files) and attempt.plan.settings.fewer_machines
        granted = await self._present(answers, dispensable=dispensable)
        for number, rank in enumerate(self._ranks, 1):
            rank.place(number, attempt.run.rank(number))
        for number in range(len(self._ranks) + 1, len(answers) + 1):
            attempt.run.rank(number).machine.unlink(missing_ok=True)
        if granted:
            places = [0, *(all_ranks.index(rank) + 1 for rank in self._ranks)]
            await self._join(granted, _of_some(devices, places))

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

    async def _join(self, granted: Sequence[RankGranted], devices: Devices | None) -> None:
        ports = free_ports(len(granted) + 1)
        joined = by_ring(granted, ports) if devices is None else by_rdma(granted, ports[0], devices)
        self._layout = joined
        opened = await asyncio.gather(*map(self._open, joined.first), return_exceptions=True)
        for failure in opened:
            if failure is not None:
                raise failure
        write_text(self._attempt.run.hosts, joined.hosts)

    async def _open(self, way: Way) -> None:
        rank = self._ranks[way.rank - 1]
        self._ways.append((rank, await open_way(rank.machine.host, way.there, way.back)))

    async def start(self, ended: asyncio.Future[None]) -> None:
        """Start the ranks, now that rank 0 is being started; in a ring the last one when all others
        listen, and let it be reached when it does. Where one never listens, all are ended.
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
        layout = self._layout
        await self._until(lambda: listens(workers_of(run), layout.port), ended, "rank 0")
        *others, last = self._ranks
        for rank in others:
            await self._go(rank)
        if layout.last is None:
            await self._go(last)
            return
        for rank in others:
            await self._until(lambda rank=rank: rank.listens or rank.over, ended, rank.name)  # type: ignore[misc]
        await self._go(last)
        await self._until(lambda: last.listens or last.over, ended, last.name)
        if not ended.done():
            await self._open(layout.last)

    async def _go(self, rank: RemoteRank) -> None:
        await rank.go(self._layout.addresses[rank.number - 1], self._layout.devices)

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


def party_of(attempt: Attempt) -> Party:
    """Return the other machines of an attempt, not asked yet. Raises InvalidInput."""
    return Party(attempt, [RemoteRank(OtherMachine(host)) for host in hosts_of(attempt.document)])

"""Starts and follows the workers of jobs (train, evaluate), and determines how they ended."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable
from pathlib import Path

from safetrain_shared.errors import EXIT_RANK, NoRoom
from safetrain_shared.events import Notice
from safetrain_shared.findings import Finding, Status
from safetrain_shared.paths import RunFolder
from safetrain_shared.settings import TrainingSettings
from safetraind import host
from safetraind.controller.contained_work import Happened
from safetraind.controller.display_sleep import let_display_sleep_if_unattended
from safetraind.controller.gpu_lease import GpuLease
from safetraind.controller.job_files import JobFiles
from safetraind.controller.lessons import lesson
from safetraind.controller.output_lock import lock_output
from safetraind.controller.rank_folders import prepare_ranks, ranks_in
from safetraind.controller.retries import Retries
from safetraind.controller.start_failure import start_failure
from safetraind.controller.start_notices import start_notices
from safetraind.controller.worker_exit import read_end
from safetraind.host import HostFacts
from safetraind.host.agents import agent_path
from safetraind.machines.party import Attempt, Party, party_of
from safetraind.processes.locks import lock_run
from safetraind.processes.rank_links import ALONE, RankLink, leading_link
from safetraind.processes.rank_watch import RankWatch
from safetraind.processes.supervisor import Supervisor, Worker, seq_floor, write_launch
from safetraind.scheduler import triggers
from safetraind.scheduler.state import Job, WorkerExit
from safetraind.storage import documents, event_file, output_folder
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.storage.durable import clear

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 0.4  # live events are coalesced by as much


class Trainings:
    """Runs the worker of one job at a time."""

    def __init__(
        self,
        files: JobFiles,
        supervisor: Supervisor,
        lease: GpuLease,
        retries: Retries,
        current: Callable[[int], Job],
        happened: Happened,
    ) -> None:
        """`current` returns a job in its present state. `happened` takes the triggers for the
        scheduler.
        """
        self._files = files
        self._supervisor = supervisor
        self._lease = lease
        self._retries = retries
        self._current = current
        self._happened = happened

    async def launch(self, job_id: int, attempt: int) -> None:
        """Start the job's worker, hand it the lease and follow it to its end."""
        run = self._files.run(job_id)
        try:
            notices = await bounded(run.root, self._notices, job_id, attempt, seconds=SLOW_SECONDS)
            if notices:
                self._files.emit(self._current(job_id), *map(Notice, notices))
            party = await self._gathered(run, self._current(job_id), attempt)
            worker = await self._start_with(party, run, job_id, attempt)
        except Exception as error:  # whatever it is, the lease must not stay held
            log.warning("job %d: its worker could not be started: %s", job_id, error, exc_info=True)
            await self._happened(triggers.LaunchFailed(job_id, start_failure(run, error)))
        else:
            self._lease.drop()
            await self._follow(job_id, worker, party)

    async def adopt(self, job_id: int) -> None:
        """Follow the living workers that an earlier daemon of this home started. Those on other
        machines ended with it, and so do these.
        """
        await self._follow(job_id, self._supervisor.adopt(self._files.run(job_id)))

    async def exit_of(self, job_id: int, *, observed: bool = False) -> WorkerExit:
        """Return the end of the job's newest worker, once the disk allows to read it. `observed`:
        this daemon followed it to its end.
        """
        machine = await _machine()

        def read() -> WorkerExit:
            job = self._current(job_id)
            run, progress = self._files.run(job.id), self._files.progress(job)
            for number in range(job.ranks):  # a keeper that was killed leaves what it had reserved
                clear(Path(f"{run.rank(number).exit}.new"))
            return read_end(run, job, progress, lambda: machine, observed=observed)

        return await self._retries.until_possible(read)

    async def learn(self, job: Job, end: WorkerExit) -> None:
        """Keep a training's measurement for the planner: its death of memory, or its peak under an
        unmeasured plan.
        """
        home = self._files.home
        try:
            note = lesson(home, job, end, self._files.progress(job))
            if note is not None:
                await bounded(home.learned, note)
        except Exception as error:  # the job must go on all the same
            log.warning("job %d: its measurements could not be kept: %s", job.id, error)

    def _notices(self, job_id: int, attempt: int) -> list[Finding]:
        plan = self._current(job_id).plan
        settings = plan.settings if plan is not None else TrainingSettings()
        at_login = agent_path().exists()
        return start_notices(host.gather(), settings, attempt, at_login=at_login)

    async def _start_with(
        self, party: Party | None, run: RunFolder, job_id: int, attempt: int
    ) -> Worker:
        """Start the worker; let the other machines go where that fails."""
        link = leading_link(run, party.coordinator) if party and not party.alone else ALONE
        try:
            return await self._start(run, job_id, attempt, link)
        except BaseException:
            if party:
                await party.close(wait=False)
            raise

    async def _start(self, run: RunFolder, job_id: int, attempt: int, link: RankLink) -> Worker:
        """Start the worker, or all ranks that are on this machine."""
        held = [lock := lock_run(run)]
        try:
            folder = self._trained_in(job_id)
            output = await lock_output(folder)
            if output is not None:
                held.append(output)
            await bounded(folder, self._check_folder, job_id, folder)
            known = self._files.events.known(job_id)
            floor = seq_floor(run, known, event_file.last_seq(run.events))
            self._files.restore(job_id)
            role = self._prepare_role(run, job_id)
            write_launch(run, role, attempt, floor)
            job = self._current(job_id)
            ranks = 1 if job.machines else job.ranks
            prepare_ranks(run, role, attempt, ranks)
            return await self._supervisor.start(
                *(run, role),
                lock=lock,
                lease=self._lease.descriptor,
                output=output,
                ranks=ranks,
                link=link,
            )
        finally:
            for descriptor in held:
                os.close(descriptor)

    async def _gathered(self, run: RunFolder, job: Job, attempt: int) -> Party | None:
        """Return the other machines of the training, ready for rank 0; None where it has none.
        Raises what one refuses.
        """
        record = self._files.record(job.id)
        if job.plan is None or not job.machines:
            return None
        output = Path(record.output)
        party = party_of(Attempt(run, record.document, job.plan, attempt, output))
        try:
            await party.gather()
            if party.missing:
                args = {"machines": ", ".join(party.missing)}
                missing = Finding("machines.missing", Status.WARNING, args=args)
                self._files.emit(job, Notice(missing))
        except BaseException:
            await party.close(wait=False)
            raise
        return party

    def _trained_in(self, job_id: int) -> Path:
        """Return the folder of the job's training, or of the training that it evaluates."""
        output = Path(self._files.record(job_id).output)
        return output.parent if self._current(job_id).evaluates else output

    def _check_folder(self, job_id: int, folder: Path) -> None:
        """Raise Conflict where the folder holds another training by now."""
        document, home = self._files.record(job_id).document, self._files.home.root
        evaluation = document.spec.evaluation
        if self._current(job_id).evaluates and evaluation is not None:
            output_folder.check_not_replaced(folder, evaluation.job, home)
        else:
            output_folder.check_not_replaced(folder, job_id, home, document)

    def _prepare_role(self, run: RunFolder, job_id: int) -> str:
        """Return the job's role; a training's plan is written down first."""
        job = self._current(job_id)
        if job.evaluates:
            return "evaluate"
        assert job.plan is not None  # a training is only launched with one
        documents.write(run.plan, job.plan)
        return "train"

    async def _follow(self, job_id: int, worker: Worker, party: Party | None = None) -> None:
        feed = self._files.events.feed(job_id)
        watch = RankWatch(worker.run, ranks_in(worker.run, self._current(job_id)))
        ended = asyncio.ensure_future(worker.ended())
        joining = asyncio.ensure_future(party.start(ended)) if party else None
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=FOLLOW_SECONDS)
                with contextlib.suppress(OSError):
                    feed.look()
                    watch.look()
                    if party:
                        party.look()
            await ended
        finally:
            ended.cancel()
            if party and joining:
                joining.cancel()
                await party.close(wait=watch.found is None and party.found is None)
        end = await self.exit_of(job_id, observed=True)
        end = _with_ranks(end, watch, party)
        log.info("job %d: its worker has ended: %s", job_id, end)
        await let_display_sleep_if_unattended(self._current(job_id), end)
        await self.learn(self._current(job_id), end)
        await self._happened(triggers.WorkerEnded(job_id, end))


async def _machine() -> HostFacts:
    """Return the machine's facts, read in a thread: on a Mac six programs tell them, which may hang
    for seconds each where memory is short.
    """
    try:
        return await bounded("/", host.gather, seconds=SLOW_SECONDS)
    except NoRoom:
        return host.gather()


def _with_ranks(end: WorkerExit, watch: RankWatch, party: Party | None) -> WorkerExit:
    """Return a worker's end with what was found of the ranks that it trained with."""
    if end.outcome:
        return end
    failure = party.failure() if party else None
    if failure is not None:
        return dataclasses.replace(end, outcome=failure.outcome, cause=failure.cause)
    found = (party.found if party else None) or watch.found
    if found is None and party and (end.rank or end.code == EXIT_RANK):
        found = party.found_late
    return dataclasses.replace(end, hung=found) if found is not None else end

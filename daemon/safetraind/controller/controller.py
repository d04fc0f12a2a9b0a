"""The jobs of one home: what services ask of them, and every decision about them kept."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator

from safetrain_shared.errors import Busy, SafetrainError
from safetrain_shared.findings import Finding, Status, finding_of
from safetrain_shared.history import Progress
from safetrain_shared.jobs import LIVE, JobState
from safetrain_shared.paths import Home, private
from safetraind.controller.effect_runner import EffectRunner
from safetraind.controller.gpu_lease import LEASE_SECONDS, GpuLease, LeaseBorrower
from safetraind.controller.job_check import Checker, JobCheck
from safetraind.controller.job_files import JobFiles
from safetraind.controller.leftovers import end_ephemeral_workers, highest_run
from safetraind.controller.retries import Retries
from safetraind.controller.trainings import Trainings
from safetraind.processes.lease import Lease, is_held
from safetraind.processes.supervisor import Supervisor
from safetraind.scheduler import state, state_machine, triggers
from safetraind.scheduler.state import Job, SchedulerState
from safetraind.storage import documents
from safetraind.storage.event_feed import EventFeed
from safetraind.storage.job_document import JobDocument
from safetraind.storage.job_store import JobStore, Record

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 1.0  # at the start, before serving goes first


class Controller:
    """Applies triggers to the scheduler's state, keeps the result, runs the effects."""

    def __init__(
        self, home: Home, store: JobStore, supervisor: Supervisor, lease: Lease, checker: Checker
    ) -> None:
        self._files = files = JobFiles(home, store)
        self._lease = gpu = GpuLease(lease)
        self._retries = retries = Retries()
        self._check = JobCheck(files, supervisor, gpu, retries, checker, self._happened)
        self._trainings = Trainings(files, supervisor, gpu, retries, self.job, self._happened)
        self._effects = EffectRunner(
            files,
            gpu,
            retries,
            self._check,
            self._trainings,
            lambda: self._scheduler,
            self._happened,
        )
        self._scheduler = SchedulerState()
        self._unreadable: set[int] = set()

    # What the services ask.

    @property
    def home(self) -> Home:
        """The home whose jobs these are."""
        return self._files.home

    @property
    def scheduler(self) -> SchedulerState:
        """All jobs as they stand."""
        return self._scheduler

    @property
    def store(self) -> JobStore:
        """The database."""
        return self._files.store

    @property
    def lease_borrowers(self) -> list[LeaseBorrower]:
        """Who holds the GPU lease only until a job needs it."""
        return self._lease.borrowers

    @property
    def idle(self) -> bool:
        """Nobody has the GPU and nobody waits for it: what is free now is free for the next job."""
        waits = self._scheduler.lease != state.FREE or bool(self._scheduler.waiting)
        return not waits and not self._lease.held

    @property
    def stopping(self) -> bool:
        """Whether the daemon is on its way out."""
        return self._scheduler.stopping

    def record(self, job_id: int) -> Record:
        """The job's fixed part and times. Raises NotFound."""
        return self._files.record(job_id)

    def job(self, job_id: int) -> Job:
        """The job's moving part. Raises NotFound."""
        self.record(job_id)
        return self._scheduler.jobs[job_id]

    def feed(self, job_id: int) -> EventFeed:
        """The job's event file. Raises NotFound."""
        return self._files.feed(job_id)

    def progress(self, job_id: int) -> Progress:
        """How far the job is, by its event file as it is now. Raises NotFound."""
        return self._files.progress(job_id)

    def note_delivered(self, job_id: int, seq: int) -> None:
        """Events up to `seq` are about to be sent to a client: no `seq` up to it is used again."""
        self._files.watermark.note(job_id, seq)

    def request(self, trigger: triggers.Trigger) -> None:
        """Carry out what a user asks for. Raises what `decide` raises, Busy, and NoRoom."""
        if self.stopping:
            raise Busy("daemon.stopping")
        self._apply(trigger)

    def accept(
        self, document: JobDocument, output: str, *, key: str = "", after: int = 0
    ) -> Record:
        """Take a new job into the queue; it will not be lost. Raises NoRoom."""
        record = self.store.add(document, output, key, after, time.time())
        self._files.keep(record)
        # From here on it is accepted: nothing that a full disk does may deny it any more.
        self._put(record.job)
        self._apply(triggers.Submitted(record.job))
        return record

    def revise(self, job_id: int, document: JobDocument, *, after: int, replan: bool) -> None:
        """Give a job that does not run other options; `replan`: its plan was made for others.

        Raises NoRoom; the job is then as it was.
        """
        run, job = self._files.run(job_id), self.job(job_id)
        record = self.store.revise(job_id, document, after)
        self._files.keep(record)
        plan, shorter = None if replan else job.plan, record.job.allow_shorter
        self._put(dataclasses.replace(job, after=after, allow_shorter=shorter, plan=plan))

        def act() -> None:
            if replan:
                run.plan.unlink(missing_ok=True)
            documents.write(run.spec, document)

        self._retries.persist(f"job {job_id}: its options", act)

    async def borrow_lease(self, *, wait: bool) -> int | None:
        """A descriptor that holds the GPU lease for a moment, to be closed by the caller.

        None where a job or another process has it, unless `wait`.
        """
        while wait and self._scheduler.lease != state.FREE:
            await asyncio.sleep(LEASE_SECONDS)
        if self._scheduler.lease != state.FREE:
            return None
        return await self._lease.take(wait=wait)

    # Start and stop of the daemon.

    async def open(self) -> None:
        """Take the home over: adopt living workers, learn how dead ones ended, go on."""
        self.store.reserve(highest_run(private(self.home.root / "runs")))
        await end_ephemeral_workers(self.home)
        jobs = self._files.load()
        self._scheduler = SchedulerState({job.id: job for job in jobs}, self._scheduler.lease)
        for job in jobs:  # all of them, before anything is decided
            async with self._setting_aside(job):
                self._put(self._files.with_plan(job))
        for job in [job for job in self._scheduler.jobs.values() if job.id not in self._unreadable]:
            async with self._setting_aside(job):
                await self._take_over(job)
        self._apply(triggers.WakeUp())

    @contextlib.asynccontextmanager
    async def _setting_aside(self, job: Job) -> AsyncIterator[None]:
        """One job's files must not keep the others from running: it becomes a failed job in
        memory, and its row and its files stay as they are.
        """
        try:
            yield
            return
        except SafetrainError as error:
            log.warning("job %d: it is set aside: %s", job.id, error)
            cause = finding_of(error)
        except Exception as error:
            log.exception("job %d: it is set aside", job.id)
            reason = f"{type(error).__name__}: {error}"[:200]
            cause = Finding("job.unreadable", Status.FAILED, True, {"reason": reason})
        self._put(dataclasses.replace(job, state=JobState.FAILED, intent="", cause=cause))
        self._unreadable.add(job.id)

    async def close(self, *, now: bool) -> None:
        """Stop deciding. A training goes on without us, unless `now`: then it is waited for."""
        self._apply(triggers.StopAsked(now))
        await self._check.ended()
        await self._lease.dismiss_borrowers()
        while now and self._scheduler.active is not None:
            await asyncio.sleep(0.05)
        await self._retries.cancel()
        self._lease.drop()
        self._files.wake_watchers()

    async def _take_over(self, job: Job) -> None:
        if job.state in LIVE:
            self._retries.persist(f"job {job.id}: its folder", lambda: self._files.restore(job.id))
        if job.state is JobState.RUNNING and is_held(self._files.run(job.id).lock):
            log.info("job %d: its worker lives and is adopted", job.id)
            self._scheduler = SchedulerState(self._scheduler.jobs, state.HELD)
            self._effects.write_intent(job.id, job.intent)
            self._retries.begin(self._trainings.adopt(job.id))
            return
        # A full disk does not keep the daemon from serving: what is left goes on meanwhile.
        await asyncio.wait({self._retries.begin(self._catch_up(job))}, timeout=_PATIENCE_SECONDS)

    async def _catch_up(self, job: Job) -> None:
        """Bring up to date what happened while no daemon was there."""
        end = None
        if job.state is JobState.RUNNING:  # first: launch.json still says in which boot it began
            end = await self._retries.until_possible(lambda: self._trainings.exit_of(job))
        self._effects.emit_missing_state(job.id)
        if end is not None:
            await self._trainings.learn(job, end)
            await self._happened(triggers.WorkerEnded(job.id, end))
        elif job.state is JobState.CHECKING:
            await self._happened(triggers.CheckEnded(job.id))

    # Decisions.

    def _apply(self, trigger: triggers.Trigger) -> None:
        """Decide, keep the decision, carry it out: in this order, so that `open` mends a crash in
        between.
        """
        scheduler, effects = state_machine.decide(self._scheduler, trigger)
        old = self._scheduler.jobs
        changed = [job for job_id, job in scheduler.jobs.items() if old.get(job_id) != job]
        if changed:
            self.store.save(changed, time.time())
        self._scheduler = scheduler
        for job in changed:
            self._files.keep(self.store.get(job.id))
        for effect in effects:
            self._effects.run(effect)

    async def _happened(self, trigger: triggers.Trigger) -> None:
        """Apply what has happened, which can't be refused: a full disk only delays it."""
        await self._retries.until_possible(lambda: self._apply(trigger))

    def _put(self, job: Job) -> None:
        jobs = {**self._scheduler.jobs, job.id: job}
        self._scheduler = dataclasses.replace(self._scheduler, jobs=jobs)

"""The jobs of one home: what services ask of them, and every decision about them kept."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time

from safetrain_shared.errors import Busy, SafetrainError, Unreachable
from safetrain_shared.findings import Finding, Status
from safetrain_shared.history import Progress
from safetrain_shared.jobs import FINAL, LIVE, JobState
from safetrain_shared.paths import Home, private
from safetraind.controller import at_start
from safetraind.controller.contained_work import ContainedWork
from safetraind.controller.effect_runner import EffectRunner
from safetraind.controller.gpu_lease import LEASE_SECONDS, GpuLease, LeaseBorrower
from safetraind.controller.job_check import Checker, JobCheck
from safetraind.controller.job_files import JobFiles
from safetraind.controller.leftovers import end_ephemeral_workers, end_orphan, highest_run
from safetraind.controller.retries import AGAIN_SECONDS, Retries
from safetraind.controller.trainings import Trainings
from safetraind.processes.lease import Lease
from safetraind.processes.locks import is_held
from safetraind.processes.supervisor import Supervisor
from safetraind.scheduler import state, state_machine, triggers
from safetraind.scheduler.state import Job, SchedulerState
from safetraind.storage import documents
from safetraind.storage.event_feed import EventFeed
from safetraind.storage.job_document import JobDocument
from safetraind.storage.job_store import SET_ASIDE, JobStore
from safetraind.storage.record import Record
from safetraind.storage.restore import DailyBackup

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 1.0  # at the start, before serving goes first


class Controller:
    """Applies triggers to the scheduler's state, keeps the result, runs the effects."""

    def __init__(
        self, home: Home, store: JobStore, supervisor: Supervisor, lease: Lease, checker: Checker
    ) -> None:
        on_trigger = self._happened
        self._files = files = JobFiles(home, store)
        self._lease = gpu = GpuLease(lease)
        self._retries = retries = Retries()
        self._backup = DailyBackup(home)
        self._work = work = ContainedWork(home, supervisor, retries, on_trigger)
        self._check = check = JobCheck(files, supervisor, gpu, work, checker, on_trigger)
        self._trainings = runs = Trainings(files, supervisor, gpu, retries, self.job, on_trigger)
        self._effects = EffectRunner(
            files=files,
            lease=gpu,
            retries=retries,
            work=work,
            check=check,
            trainings=runs,
            scheduler=lambda: self._scheduler,
            happened=on_trigger,
            lease_taken=self._lease_taken,
        )
        self._scheduler = SchedulerState()
        self._farewell: SafetrainError = Unreachable("daemon.stopping")

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
        """The users of the GPU lease that give it back when a job needs it."""
        return self._lease.borrowers

    @property
    def idle(self) -> bool:
        """Whether nobody holds the GPU or waits for it, so that a new job can have the free
        memory.
        """
        waits = self._scheduler.lease != state.FREE or bool(self._scheduler.waiting)
        return not waits and not self._lease.held

    @property
    def stopping(self) -> bool:
        """Whether the daemon is shutting down."""
        return self._scheduler.stopping

    @property
    def farewell(self) -> SafetrainError:
        """The error that watchers get when the daemon stops."""
        return self._farewell

    @property
    def check_phase(self) -> str:
        """The phase of the preflight of the job in state CHECKING; empty where there is none."""
        return self._check.phase

    def record(self, job_id: int) -> Record:
        """Return the job's fixed part and times. Raises NotFound."""
        return self._files.record(job_id)

    def job(self, job_id: int) -> Job:
        """Return the job's moving part. Raises NotFound."""
        self.record(job_id)
        return self._scheduler.jobs[job_id]

    def feed(self, job_id: int) -> EventFeed:
        """Return the job's event file. Raises NotFound."""
        self.record(job_id)
        return self._files.events.feed(job_id)

    def progress(self, job_id: int) -> Progress:
        """Return the job's progress, read from its event file. Raises NotFound."""
        return self._files.progress(self.job(job_id))

    def note_delivered(self, job_id: int, seq: int) -> None:
        """Note that events up to `seq` are about to be sent to a client, so that none of these
        numbers is used again.
        """
        self._files.events.note_delivered(job_id, seq)

    def tidy(self) -> None:
        """Write data that is not urgent: the progress of jobs that have ended, the daily backup."""
        self._files.events.flush()
        self._backup.renew(self.store)

    def request(self, trigger: triggers.Trigger) -> None:
        """Carry out a user's request. Raises the errors of `decide`, Busy and NoRoom."""
        if self.stopping:
            raise Busy("daemon.stopping")
        self._apply(trigger)

    def accept(
        self, document: JobDocument, output: str, *, key: str = "", after: int = 0
    ) -> Record:
        """Take a new job into the queue; it will not be lost. Raises NoRoom."""
        record = self.store.add(document, output, key, after, time.time())
        job = record.job
        self._files.keep(record)
        self._put(job)  # from here on it is accepted: nothing may deny it any more
        try:
            self._apply(triggers.Submitted(job))
        except Exception as error:
            log.warning("job %d: queueing: %s; trying again", job.id, error)
            self._work.begin(job.id, self._happened(triggers.Submitted(job)))
        return record

    def revise(self, job_id: int, document: JobDocument, *, after: int, replan: bool) -> None:
        """Give other options to a job that does not run. `replan`: drop its plan, which was made
        for others.

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
        """Return a descriptor that holds the GPU lease, which the caller closes soon.

        Return None where a job or another process holds the lease, unless `wait`.
        """
        while wait and self._scheduler.lease != state.FREE:
            await asyncio.sleep(LEASE_SECONDS)
        if self._scheduler.lease != state.FREE:
            return None
        return await self._lease.take(wait=wait)

    # Start and stop of the daemon.

    async def open(self) -> None:
        """Recover the jobs at start: adopt running workers, read the exits of those that ended,
        start jobs that can run.
        """
        runs = private(self.home.root / "runs")
        jobs, readable = {}, []
        for found in at_start.found(self.home, self.store, self._files.events):
            self._files.keep(found.record)
            jobs[found.job.id] = found.job
            readable += [found.job] if found.is_readable else []
        self.store.reserve(highest_run(runs))
        await end_ephemeral_workers(self.home)
        self._scheduler = SchedulerState(jobs, self._scheduler.lease)
        for job in readable:
            if job.state in FINAL and self._files.events.is_kept(job.id):
                continue  # the event of its end was emitted, and all of it is known
            try:
                await self._take_over(job)
            except Exception as error:  # one job's files must not keep the others from running
                log.exception("job %d: it is set aside", job.id)
                self._set_aside(job, error)
        self._retries.begin(self._happened(triggers.WakeUp()))

    async def close(self, *, now: bool) -> None:
        """Stop deciding. A training continues without the daemon, unless `now`: then it is paused,
        and its end is awaited.
        """
        self._apply(triggers.StopAsked(now))
        await self._check.ended()
        await self._lease.dismiss_borrowers()
        while now and self._scheduler.active is not None:
            await asyncio.sleep(0.05)
        await self._retries.cancel()
        self._lease.drop()
        self._files.events.flush()
        self._files.events.wake_watchers()

    async def abandon(self, why: SafetrainError) -> None:
        """Stop for `why`, because the home is gone or another daemon's: nothing is written there.

        A training saves a checkpoint in its output folder and ends.
        """
        self._farewell = why
        active = self._scheduler.active
        self._scheduler = dataclasses.replace(self._scheduler, stopping=True)
        await self._retries.cancel()
        self._files.events.wake_watchers()
        await self._lease.dismiss_borrowers()
        if active is not None and why.code == "home.gone":
            await end_orphan(self._files.run(active.id))
        self._lease.drop()

    def _set_aside(self, job: Job, error: Exception) -> None:
        """Mark a job as failed in memory. Its row and its files stay as they are."""
        reason = f"{type(error).__name__}: {error}"[:200]
        cause = Finding(SET_ASIDE, Status.FAILED, True, {"reason": reason})
        self._put(dataclasses.replace(job, state=JobState.FAILED, intent="", cause=cause))

    async def _take_over(self, job: Job) -> None:
        if job.state in LIVE:
            self._retries.persist(f"job {job.id}: its folder", lambda: self._files.restore(job.id))
        if job.state is JobState.RUNNING and is_held(self._files.run(job.id).lock):
            log.info("job %d: its worker lives and is adopted", job.id)
            self._scheduler = SchedulerState(self._scheduler.jobs, state.HELD)
            self._effects.write_intent(job.id, job.intent)
            self._work.begin(job.id, self._trainings.adopt(job.id))
            return
        # A full disk does not keep the daemon from serving: what is left goes on meanwhile.
        catching_up = self._work.begin(job.id, self._catch_up(job))
        await asyncio.wait({catching_up}, timeout=_PATIENCE_SECONDS)

    async def _catch_up(self, job: Job) -> None:
        """Apply what happened while no daemon ran."""
        end = None
        if job.state is JobState.RUNNING:  # first: launch.json still says in which boot it began
            end = await self._trainings.exit_of(job.id)
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
        for job in changed:  # what was saved must be carried out
            self._files.keep_saved(job)
        for effect in effects:
            self._effects.run(effect)

    async def _happened(self, trigger: triggers.Trigger) -> None:
        """Apply a trigger that can't be refused: a full disk only delays it."""
        await self._retries.until_possible(lambda: self._apply(trigger))

    async def _lease_taken(self) -> None:
        try:
            await self._happened(triggers.LeaseTaken())
        except Exception:
            log.exception("the lease could not be used; trying again")
            self._lease.drop()
            self._scheduler = dataclasses.replace(self._scheduler, lease=state.FREE)
            await asyncio.sleep(AGAIN_SECONDS)
            await self._happened(triggers.WakeUp())

    def _put(self, job: Job) -> None:
        jobs = {**self._scheduler.jobs, job.id: job}
        self._scheduler = dataclasses.replace(self._scheduler, jobs=jobs)

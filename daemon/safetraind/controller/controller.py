"""Carries out what the scheduler decides: jobs, files, locks and workers meet here."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import shutil
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from safetrain_shared.errors import Busy, NoRoom, NotFound, SafetrainError, Unreachable
from safetrain_shared.events import Body, Notice, Planned, StateChanged
from safetrain_shared.findings import Finding, Status, finding_of
from safetrain_shared.history import Progress
from safetrain_shared.jobs import FINAL, LIVE, JobSpec, JobState, Plan
from safetrain_shared.paths import Home, RunFolder, private
from safetrain_shared.settings import TrainingSettings
from safetraind import host
from safetraind.controller import at_start, emit_event, wait_for_resources
from safetraind.controller.gpu_lease import LEASE_SECONDS, GpuLease, LeaseBorrower
from safetraind.controller.job_progress import JobProgress
from safetraind.controller.leftovers import end_ephemeral_workers, end_orphan, highest_run
from safetraind.controller.lessons import lesson
from safetraind.controller.output_lock import lock_output
from safetraind.controller.retries import AGAIN_SECONDS, Retries
from safetraind.controller.start_failure import start_failure
from safetraind.controller.start_notices import start_notices
from safetraind.controller.worker_exit import darken, read_end
from safetraind.host.agents import agent_path
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.processes.lease import Lease, is_held, try_lock
from safetraind.processes.supervisor import (
    Supervisor,
    Worker,
    seq_floor,
    write_launch,
)
from safetraind.scheduler import effects, state, state_machine, triggers
from safetraind.scheduler.state import Job, SchedulerState
from safetraind.storage import documents, event_file
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.storage.durable import write_text
from safetraind.storage.event_feed import EventFeed
from safetraind.storage.job_document import JobDocument
from safetraind.storage.job_store import SET_ASIDE, JobStore
from safetraind.storage.record import Record
from safetraind.storage.restore import DailyBackup

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 0.4  # live events are coalesced by as much
_PATIENCE_SECONDS = 1.0  # at the start, before serving goes first


class Checker(Protocol):
    """Probes and plans a job whose turn has come. `phase`: what it does, for people."""

    phase: str

    async def check(self, spec: JobSpec, launcher: EphemeralWorkers) -> Plan | Finding:
        """The frozen plan, or what blocks the training."""


class Controller:
    """The jobs of one home and the one training at a time."""

    def __init__(
        self, home: Home, store: JobStore, supervisor: Supervisor, lease: Lease, checker: Checker
    ) -> None:
        self.home = home
        self._store = store
        self._progress = JobProgress(home, store)
        self._backup = DailyBackup(home)
        self._supervisor = supervisor
        self._lease = GpuLease(lease)
        self._retries = Retries()
        self._checker = checker
        self._scheduler = SchedulerState()
        self._records: dict[int, Record] = {}
        self._check: asyncio.Task[None] | None = None
        self._farewell: SafetrainError = Unreachable("daemon.stopping")

    # What the services ask.

    @property
    def scheduler(self) -> SchedulerState:
        """All jobs as they stand."""
        return self._scheduler

    @property
    def store(self) -> JobStore:
        """The database."""
        return self._store

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

    @property
    def farewell(self) -> SafetrainError:
        """What watchers are told when the daemon stops."""
        return self._farewell

    def record(self, job_id: int) -> Record:
        """The job's fixed part and times. Raises NotFound."""
        if job_id not in self._records:
            raise NotFound("job.unknown", id=job_id)
        return self._records[job_id]

    def job(self, job_id: int) -> Job:
        """The job's moving part. Raises NotFound."""
        self.record(job_id)
        return self._scheduler.jobs[job_id]

    def feed(self, job_id: int) -> EventFeed:
        """The job's event file. Raises NotFound."""
        self.record(job_id)
        return self._progress.feed(job_id)

    @property
    def check_phase(self) -> str:
        """What the preflight of the job in state CHECKING does; empty where there is none."""
        return self._checker.phase

    def progress(self, job_id: int) -> Progress:
        """How far the job is, by its event file as it is now. Raises NotFound."""
        return self._progress.of(job_id, ended=self.job(job_id).state in FINAL)

    def note_delivered(self, job_id: int, seq: int) -> None:
        """Events up to `seq` are about to be known outside: no `seq` up to it is used again."""
        self._progress.note_delivered(job_id, seq)

    def tidy(self) -> None:
        """Writes what may wait a moment: the progress of jobs that have ended, the daily backup."""
        self._progress.flush()
        self._backup.renew(self._store)

    def wish(self, trigger: triggers.Trigger) -> None:
        """Carries out what a user wants. Raises what `machine.decide` raises, and NoRoom."""
        if self.stopping:
            raise Busy("daemon.stopping")
        self._apply(trigger)

    def accept(
        self, document: JobDocument, output: str, *, key: str = "", after: int = 0
    ) -> Record:
        """Takes a new job into the queue; it will not be lost. Raises NoRoom."""
        job = (record := self._store.add(document, output, key, after, time.time())).job
        self._records[job.id] = record
        # From here on it is accepted: nothing may deny it any more.
        self._scheduler = dataclasses.replace(
            self._scheduler, jobs={**self._scheduler.jobs, job.id: job}
        )
        try:
            self._apply(triggers.Submitted(job))
        except Exception as error:
            log.warning("job %d: queueing: %s; trying again", job.id, error)
            self._begin(job.id, self._happened(triggers.Submitted(job)))
        return record

    def revise(self, job_id: int, document: JobDocument, *, after: int, replan: bool) -> None:
        """Gives a job that does not run other options; `replan`: its plan was made for others.

        Raises NoRoom; the job is then as it was.
        """
        run, job = self._run(job_id), self.job(job_id)
        record = self._records[job_id] = self._store.revise(job_id, document, after)
        plan, shorter = None if replan else job.plan, record.job.allow_shorter
        job = dataclasses.replace(job, after=after, allow_shorter=shorter, plan=plan)
        self._scheduler = dataclasses.replace(
            self._scheduler, jobs={**self._scheduler.jobs, job_id: job}
        )

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

    # Beginning and end of the daemon.

    async def open(self) -> None:
        """Takes the home over: adopts living workers, learns how dead ones ended, goes on."""
        runs = private(self.home.root / "runs")
        jobs = {}
        for record, job in at_start.found(self.home, self._store, self._progress):
            self._records[job.id] = record
            jobs[job.id] = job
        self._store.reserve(highest_run(runs))
        await end_ephemeral_workers(self.home)
        self._scheduler = SchedulerState(jobs, self._scheduler.lease)
        for job in jobs.values():
            try:
                await self._take_over(job)
            except Exception as error:  # one job's files must not keep the others from running
                log.exception("job %d: it is set aside", job.id)
                self._set_aside(job, error)
        self._retries.begin(self._happened(triggers.WakeUp()))

    def _set_aside(self, job: Job, error: Exception) -> None:
        """Makes it a failed job in memory; its row and its files stay as they are."""
        reason = f"{type(error).__name__}: {error}"[:200]
        cause = Finding(SET_ASIDE, Status.FAILED, True, {"reason": reason})
        job = dataclasses.replace(job, state=JobState.FAILED, intent="", cause=cause)
        jobs = {**self._scheduler.jobs, job.id: job}
        self._scheduler = dataclasses.replace(self._scheduler, jobs=jobs)

    async def close(self, *, now: bool) -> None:
        """Stops deciding. A training goes on without us, unless `now`: then it is waited for."""
        self._apply(triggers.StopAsked(now))
        if self._check is not None:
            await asyncio.wait({self._check})
        await self._lease.dismiss_borrowers()
        while now and self._scheduler.active is not None:
            await asyncio.sleep(0.05)
        await self._retries.cancel()
        self._lease.drop()
        self._progress.flush()
        self._progress.wake_watchers()

    async def abandon(self, why: SafetrainError) -> None:
        """Stops for `why`, because the home is gone or another daemon's: nothing is written there.

        A training saves a checkpoint in its output folder and ends.
        """
        self._farewell = why
        active = self._scheduler.active
        self._scheduler = dataclasses.replace(self._scheduler, stopping=True)
        await self._retries.cancel()
        self._progress.wake_watchers()
        await self._lease.dismiss_borrowers()
        if active is not None and why.code == "home.gone":
            await end_orphan(self._run(active.id))
        self._lease.drop()

    async def _take_over(self, job: Job) -> None:
        run = self._run(job.id)
        if job.state in LIVE:
            self._retries.persist(f"job {job.id}: its folder", lambda: self._restore(run, job.id))
        if job.state is JobState.RUNNING and is_held(run.lock):
            log.info("job %d: its worker is at work, adopted", job.id)
            self._scheduler = SchedulerState(self._scheduler.jobs, state.HELD)
            self._intend(job.id, job.intent)
            self._begin(job.id, self._accompany(job.id, self._supervisor.adopt(run)))
            return
        # A full disk does not keep the daemon from serving: what is left goes on meanwhile.
        await asyncio.wait({self._begin(job.id, self._catch_up(job))}, timeout=_PATIENCE_SECONDS)

    async def _catch_up(self, job: Job) -> None:
        """Tells what happened while no daemon was there."""
        end = None
        if job.state is JobState.RUNNING:  # first: launch.json still says in which boot it began
            end = await self._retries.insist(lambda: self._end(job))
        self._retries.persist(f"job {job.id}: telling", lambda: self._reconcile(job.id))
        if end is not None:
            await self._learn(job, end)
            await self._happened(triggers.WorkerEnded(job.id, end))
        elif job.state is JobState.CHECKING:
            await self._happened(triggers.CheckEnded(job.id))

    def _restore(self, run: RunFolder, job_id: int) -> None:
        """Puts back what a crash between database and disk may have left out."""
        private(run.root)
        document = self._records[job_id].document
        if documents.read(run.spec, JobDocument) != document:  # cut, gone or changed
            documents.write(run.spec, document)

    # Deciding.

    def _apply(self, trigger: triggers.Trigger) -> None:
        """Decides, keeps the decision, carries it out: in this order, so that a crash in between
        is mended by `open`.
        """
        scheduler, effects = state_machine.decide(self._scheduler, trigger)
        old = self._scheduler.jobs
        changed = [job for job_id, job in scheduler.jobs.items() if old.get(job_id) != job]
        if changed:
            self._store.save(changed, time.time())
        self._scheduler = scheduler
        for job in changed:
            self._records[job.id] = self._record_of(job)
        for effect in effects:
            log.debug("%s", effect)
            try:
                self._CARRY_OUT[type(effect)](self, effect)
            except Exception:  # the decision stands: what comes after it must be carried out too
                log.exception("%s could not be carried out", effect)

    def _record_of(self, job: Job) -> Record:
        """As the database has it; what was saved must be carried out even if it can't be read."""
        try:
            return self._store.get(job.id)
        except Exception:
            log.exception("job %d: its record could not be read again", job.id)
            return dataclasses.replace(self._records[job.id], job=job)

    def _begin(self, job_id: int, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts work on a job. What breaks it unforeseen ends that job, and never the queue."""
        return self._retries.begin(self._contained(job_id, work))

    async def _contained(self, job_id: int, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            log.exception("job %d: the work on it broke", job_id)
            await self._supervisor.adopt(self._run(job_id)).ended()  # then it holds no lease
            await self._happened(triggers.WorkBroke(job_id, self._broken(error)))

    def _broken(self, error: Exception) -> Finding:
        args = {"reason": f"{type(error).__name__}: {error}"[:200], "log": str(self.home.log)}
        return Finding("daemon.broken", Status.FAILED, True, args)

    async def _happened(self, trigger: triggers.Trigger) -> None:
        """What happened can't be refused: a full disk only delays it."""
        await self._retries.insist(lambda: self._apply(trigger))

    # Carrying out.

    def _tell(self, effect: effects.EmitEvent) -> None:
        job_id = effect.id
        run = self._run(job_id)
        body = StateChanged(effect.state, effect.cause)

        def act() -> None:
            self._restore(run, job_id)
            self._say(job_id, body)

        try:
            act()
        except (OSError, NoRoom, Busy) as error:
            log.warning("job %d: its state could not be told: %s", job_id, error)
            self._retries.later(f"job {job_id}: telling", lambda: self._reconcile(job_id))

    def _say(self, job_id: int, *bodies: Body) -> None:
        attempt, known = (
            self._scheduler.jobs[job_id].attempt,
            self._progress.known(job_id),
        )
        self.note_delivered(job_id, emit_event.tell(self._run(job_id), attempt, known, *bodies))
        self.feed(job_id).look()
        if self._scheduler.jobs[job_id].state in FINAL:
            self.progress(job_id)  # for the database to keep

    def _reconcile(self, job_id: int) -> None:
        """Tells the job's state where a crash or a full disk kept it from being told."""
        job = self._scheduler.jobs.get(job_id)
        if job is None:
            return
        ended = job.state in FINAL  # its story then ends with that very event
        if ended and self._progress.is_kept(job_id):
            return
        told = emit_event.last_state(self._run(job_id)) if ended else self.progress(job_id).state
        if told is not job.state:
            self._say(job_id, StateChanged(job.state, job.cause))

    def _take_lease(self, _: effects.TakeLease) -> None:
        async def take() -> None:
            self._lease.descriptor = await self._retries.until_whole(
                lambda: self._lease.take(wait=True)
            )
            try:
                await self._happened(triggers.LeaseTaken())
            except Exception:
                log.exception("the lease could not be used; trying again")
                self._lease.drop()
                self._scheduler = dataclasses.replace(self._scheduler, lease=state.FREE)
                await asyncio.sleep(AGAIN_SECONDS)
                await self._happened(triggers.WakeUp())

        self._retries.begin(take())

    def _drop_lease(self, _: effects.DropLease | None = None) -> None:
        self._lease.drop()

    def _start_check(self, effect: effects.Check) -> None:
        self._check = self._begin(effect.id, self._checked(effect.id))

    def _stop_check(self, _: effects.StopCheck) -> None:
        if self._check is not None:
            self._check.cancel()

    async def _checked(self, job_id: int) -> None:
        launcher = EphemeralWorkers(self.home, self._supervisor, self._lease.descriptor)
        ended: triggers.Trigger
        try:
            verdict = await self._checker.check(self._records[job_id].spec, launcher)
            if isinstance(verdict, Plan):
                ended = triggers.CheckPassed(job_id, verdict)
            else:
                ended = triggers.CheckEnded(job_id, verdict)
        except asyncio.CancelledError:
            ended = triggers.CheckEnded(job_id)
        except (OSError, NoRoom) as error:
            log.warning("job %d: its check could not go on: %s", job_id, error)
            ended = triggers.LaunchFailed(job_id, start_failure(self._run(job_id), error))
        except SafetrainError as error:
            cause = finding_of(error)
            ended = triggers.CheckEnded(job_id, cause)
        except Exception as error:
            log.exception("job %d: its check broke", job_id)
            ended = triggers.CheckEnded(job_id, self._broken(error))
        self._check = None
        await self._happened(ended)

    def _freeze(self, effect: effects.FreezePlan) -> None:
        job_id, plan = effect.id, effect.plan
        bodies: list[Body] = [Planned(plan)]
        if effect.notice is not None:
            bodies.append(Notice(effect.notice))

        def act() -> None:
            documents.write(self._run(job_id).plan, plan)
            self._say(job_id, *bodies)

        self._retries.persist(f"job {job_id}: freezing the plan", act)

    def _train(self, effect: effects.Train) -> None:
        with contextlib.suppress(OSError):  # then the worker can't be started either
            self._run(effect.id).intent.unlink(missing_ok=True)
        self._begin(effect.id, self._launch(effect.id, effect.attempt))

    async def _launch(self, job_id: int, attempt: int) -> None:
        run = self._run(job_id)
        try:
            notices = await bounded(
                run.root, self._start_notices, job_id, attempt, seconds=SLOW_SECONDS
            )
            if notices:
                self._say(job_id, *map(Notice, notices))
            worker = await self._start(run, job_id, attempt)
        except Exception as error:  # whatever it is, the lease must not stay held
            log.warning("job %d: its worker could not be started: %s", job_id, error, exc_info=True)
            await self._happened(triggers.LaunchFailed(job_id, start_failure(run, error)))
        else:
            self._drop_lease()
            await self._accompany(job_id, worker)

    def _start_notices(self, job_id: int, attempt: int) -> list[Finding]:
        plan = self._scheduler.jobs[job_id].plan
        settings = plan.settings if plan is not None else TrainingSettings()
        at_login = agent_path().exists()
        return start_notices(host.gather(), settings, attempt, at_login=at_login)

    async def _start(self, run: RunFolder, job_id: int, attempt: int) -> Worker:
        lock = try_lock(run.lock)
        if lock is None:
            raise Busy("job.live", id=job_id)
        held = [lock]
        try:
            output = await lock_output(Path(self._records[job_id].output))
            if output is not None:
                held.append(output)
            floor = seq_floor(run, self._progress.known(job_id), event_file.last_seq(run.events))
            self._restore(run, job_id)
            role = self._prepare_role(run, job_id)
            write_launch(run, role, attempt, floor)
            return await self._supervisor.start(
                run, role, lock=lock, lease=self._lease.descriptor, output=output
            )
        finally:
            for descriptor in held:
                os.close(descriptor)

    def _prepare_role(self, run: RunFolder, job_id: int) -> str:
        """The job's role; a training's plan is written down first."""
        job = self._scheduler.jobs[job_id]
        if job.evaluates:
            return "evaluate"
        assert job.plan is not None  # a training is only launched with one
        documents.write(run.plan, job.plan)
        return "train"

    async def _accompany(self, job_id: int, worker: Worker) -> None:
        """Follows the events of a training, and learns how it ended."""
        feed = self.feed(job_id)
        ended = asyncio.ensure_future(worker.ended())
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=FOLLOW_SECONDS)
                with contextlib.suppress(OSError):
                    feed.look()
            await ended
        finally:
            ended.cancel()
        end = await self._retries.insist(
            lambda: self._end(self._scheduler.jobs[job_id], observed=True)
        )
        log.info("job %d: its worker has ended: %s", job_id, end)
        await darken(self._scheduler.jobs[job_id], end)
        await self._learn(self._scheduler.jobs[job_id], end)
        await self._happened(triggers.WorkerEnded(job_id, end))

    async def _learn(self, job: Job, end: state.WorkerExit) -> None:
        """Keeps for the planner what ran out of memory, and what a back-off led to that worked."""
        try:
            note = lesson(self.home, job, end, self.progress(job.id))
            if note is not None:
                await bounded(self.home.learned, note)
        except Exception as error:  # the job's own story must go on whatever became of this
            log.warning("job %d: what it taught could not be kept: %s", job.id, error)

    def _end(self, job: Job, *, observed: bool = False) -> state.WorkerExit:
        return read_end(self._run(job.id), job, self.progress(job.id), observed=observed)

    def _await_room(self, effect: effects.WaitForResources) -> None:
        job_id = effect.id
        folders = (self._run(job_id).root, Path(self._records[job_id].output))

        async def wait() -> None:
            if effect.memory:
                await wait_for_resources.in_memory(effect.memory)
            elif effect.seconds is not None:
                await wait_for_resources.for_the_next_segment(effect.seconds)
            else:
                await wait_for_resources.on_disk(folders)

        async def tell() -> None:
            await self._retries.until_whole(wait)
            await self._happened(triggers.ResourcesFound(job_id))

        self._begin(job_id, tell())

    def _write_intent(self, effect: effects.WriteIntent) -> None:
        self._intend(effect.id, effect.intent)

    def _intend(self, job_id: int, intent: str) -> None:
        """Writes down what the job's worker is to do, by what is wished once the disk takes it."""
        file = self._run(job_id).intent

        def act() -> None:
            job = self._scheduler.jobs.get(job_id)
            if job is None or job.state is not JobState.RUNNING:
                return
            wish = job.intent or (intent if self.stopping else "")
            if wish:
                write_text(file, wish)
            else:
                file.unlink(missing_ok=True)

        self._retries.persist(f"job {job_id}: {intent or 'no wish'}", act)

    def _forget(self, effect: effects.Forget) -> None:
        job_id = effect.id
        self._records.pop(job_id, None)
        self._progress.forget(job_id)
        self._retries.persist(f"job {job_id}: forgetting", lambda: self._store.forget(job_id))
        with contextlib.suppress(OSError):  # first: nothing then rebuilds it of what is left
            self._run(job_id).spec.unlink()
        shutil.rmtree(self._run(job_id).root, ignore_errors=True)

    def _run(self, job_id: int) -> RunFolder:
        return self.home.run(job_id)

    _CARRY_OUT: dict[type, Callable[[Controller, Any], None]] = {  # noqa: RUF012
        effects.EmitEvent: _tell,
        effects.TakeLease: _take_lease,
        effects.DropLease: _drop_lease,
        effects.Check: _start_check,
        effects.StopCheck: _stop_check,
        effects.FreezePlan: _freeze,
        effects.Train: _train,
        effects.WriteIntent: _write_intent,
        effects.WaitForResources: _await_room,
        effects.Forget: _forget,
    }

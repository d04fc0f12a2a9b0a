"""Carries out the scheduler's effects: events, lease, checks, trainings, intents, waits."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from safetrain_shared.errors import Busy, NoRoom
from safetrain_shared.events import Body, Notice, Planned, StateChanged
from safetrain_shared.jobs import JobState
from safetraind.controller import wait_for_resources
from safetraind.controller.contained_work import ContainedWork, Happened
from safetraind.controller.gpu_lease import GpuLease
from safetraind.controller.job_check import JobCheck
from safetraind.controller.job_files import JobFiles
from safetraind.controller.retries import Retries
from safetraind.controller.trainings import Trainings
from safetraind.scheduler import effects, triggers
from safetraind.scheduler.state import SchedulerState
from safetraind.storage import documents
from safetraind.storage.durable import write_text

log = logging.getLogger(__name__)


class EffectRunner:
    """One method for each effect. What a full disk refuses is tried again in the background."""

    def __init__(
        self,
        *,
        files: JobFiles,
        lease: GpuLease,
        retries: Retries,
        work: ContainedWork,
        check: JobCheck,
        trainings: Trainings,
        scheduler: Callable[[], SchedulerState],
        happened: Happened,
        lease_taken: Callable[[], Awaitable[None]],
    ) -> None:
        """`scheduler` returns its present state. `happened` takes the triggers for it.

        `lease_taken` is called once the lease is held.
        """
        self._files = files
        self._lease = lease
        self._retries = retries
        self._work = work
        self._check = check
        self._trainings = trainings
        self._scheduler = scheduler
        self._happened = happened
        self._lease_taken = lease_taken

    def run(self, effect: effects.Effect) -> None:
        """Carry an effect out. An exception is logged, since the decision stands."""
        log.debug("%s", effect)
        try:
            self._METHODS[type(effect)](self, effect)
        except Exception:  # what comes after it must be carried out too
            log.exception("%s could not be carried out", effect)

    def write_intent(self, job_id: int, intent: str) -> None:
        """Write the job's intent for its worker. If the disk is full, write the one that is current
        later.
        """
        file = self._files.run(job_id).intent

        def act() -> None:
            job = self._scheduler().jobs.get(job_id)
            if job is None or job.state is not JobState.RUNNING:
                return
            wanted = job.intent or (intent if self._scheduler().stopping else "")
            if wanted:
                write_text(file, wanted)
            else:
                file.unlink(missing_ok=True)

        self._retries.persist(f"job {job_id}: {intent or 'no intent'}", act)

    def emit_missing_state(self, job_id: int) -> None:
        """Emit the job's state where its event is missing, now or once the disk takes it."""
        self._retries.persist(f"job {job_id}: its state", lambda: self._emit_missing(job_id))

    def _emit_missing(self, job_id: int) -> None:
        job = self._scheduler().jobs.get(job_id)
        if job is not None:
            self._files.emit_missing_state(job)

    def _emit(self, effect: effects.EmitEvent) -> None:
        job_id = effect.id
        try:
            self._files.restore(job_id)
            job = self._scheduler().jobs[job_id]
            self._files.emit(job, StateChanged(effect.state, effect.cause))
        except (OSError, NoRoom, Busy) as error:
            log.warning("job %d: its state could not be written: %s", job_id, error)
            self._retries.later(f"job {job_id}: its state", lambda: self._emit_missing(job_id))

    def _take_lease(self, _: effects.TakeLease) -> None:
        async def take() -> None:
            self._lease.descriptor = await self._retries.until_whole(
                lambda: self._lease.take(wait=True)
            )
            await self._lease_taken()

        self._retries.begin(take())

    def _drop_lease(self, _: effects.DropLease) -> None:
        self._lease.drop()

    def _start_check(self, effect: effects.Check) -> None:
        self._check.start(effect.id)

    def _stop_check(self, _: effects.StopCheck) -> None:
        self._check.stop()

    def _freeze_plan(self, effect: effects.FreezePlan) -> None:
        job_id, plan = effect.id, effect.plan
        bodies: list[Body] = [Planned(plan)]
        if effect.notice is not None:
            bodies.append(Notice(effect.notice))

        def act() -> None:
            documents.write(self._files.run(job_id).plan, plan)
            self._files.emit(self._scheduler().jobs[job_id], *bodies)

        self._retries.persist(f"job {job_id}: freezing the plan", act)

    def _train(self, effect: effects.Train) -> None:
        with contextlib.suppress(OSError):  # then the worker can't be started either
            self._files.run(effect.id).intent.unlink(missing_ok=True)
        self._work.begin(effect.id, self._trainings.launch(effect.id, effect.attempt))

    def _wait_for_resources(self, effect: effects.WaitForResources) -> None:
        job_id = effect.id
        folders = (self._files.run(job_id).root, Path(self._files.record(job_id).output))

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

        self._work.begin(job_id, tell())

    def _write_intent(self, effect: effects.WriteIntent) -> None:
        self.write_intent(effect.id, effect.intent)

    def _forget(self, effect: effects.Forget) -> None:
        job_id, store = effect.id, self._files.store
        self._files.forget(job_id)
        self._retries.persist(f"job {job_id}: removing it", lambda: store.forget(job_id))
        with contextlib.suppress(OSError):  # first: nothing then rebuilds it of what is left
            self._files.run(job_id).spec.unlink()
        shutil.rmtree(self._files.run(job_id).root, ignore_errors=True)

    _METHODS: dict[type, Callable[[EffectRunner, Any], None]] = {  # noqa: RUF012
        effects.EmitEvent: _emit,
        effects.TakeLease: _take_lease,
        effects.DropLease: _drop_lease,
        effects.Check: _start_check,
        effects.StopCheck: _stop_check,
        effects.FreezePlan: _freeze_plan,
        effects.Train: _train,
        effects.WriteIntent: _write_intent,
        effects.WaitForResources: _wait_for_resources,
        effects.Forget: _forget,
    }

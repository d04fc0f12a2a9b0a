"""Trainings: starting their workers, following them, and learning how they ended."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from safetrain_shared.errors import Busy
from safetrain_shared.events import Notice
from safetrain_shared.paths import RunFolder
from safetrain_shared.settings import TrainingSettings
from safetraind import host
from safetraind.controller.gpu_lease import GpuLease
from safetraind.controller.job_files import JobFiles
from safetraind.controller.lessons import lesson
from safetraind.controller.retries import Retries
from safetraind.controller.start_failure import start_failure
from safetraind.controller.start_notices import start_notices
from safetraind.controller.worker_exit import read_end
from safetraind.host.agents import agent_path
from safetraind.host.awake import let_display_sleep
from safetraind.processes.lease import soon, try_lock, try_lock_folder
from safetraind.processes.supervisor import Supervisor, Worker, seq_floor, write_launch
from safetraind.scheduler import triggers
from safetraind.scheduler.state import Job, WorkerExit
from safetraind.storage import documents, event_file

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 0.4  # live events are coalesced by as much

Happened = Callable[[triggers.Trigger], Awaitable[None]]


class Trainings:
    """Runs at most one training worker at a time."""

    def __init__(
        self,
        files: JobFiles,
        supervisor: Supervisor,
        lease: GpuLease,
        retries: Retries,
        current: Callable[[int], Job],
        happened: Happened,
    ) -> None:
        """`current`: a job as it is now. `happened`: tells the scheduler."""
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
            plan = self._current(job_id).plan
            settings = plan.settings if plan is not None else TrainingSettings()
            notices = await asyncio.to_thread(_notices, settings, attempt)
            if notices:
                self._files.emit(self._current(job_id), *notices)
            worker = await self._start(run, job_id, attempt)
        except Exception as error:  # whatever it is, the lease must not stay held
            log.warning("job %d: its worker could not be started: %s", job_id, error, exc_info=True)
            await self._happened(triggers.LaunchFailed(job_id, start_failure(run, error)))
        else:
            self._lease.drop()
            await self._follow(job_id, worker)

    async def adopt(self, job_id: int) -> None:
        """Follow the living worker that an earlier daemon of this home started."""
        await self._follow(job_id, self._supervisor.adopt(self._files.run(job_id)))

    def exit_of(self, job: Job, *, observed: bool = False) -> WorkerExit:
        """How the job's newest worker ended; `observed`: this daemon followed it to its end."""
        progress = self._files.progress(job.id)
        return read_end(self._files.run(job.id), job, progress, observed=observed)

    async def learn(self, job: Job, end: WorkerExit) -> None:
        """Keep for the planner what ran out of memory, and what an unmeasured plan took."""
        try:
            note = lesson(self._files.home, job, end, self._files.progress(job.id))
            if note is not None:
                await asyncio.to_thread(note)
        except Exception as error:  # the job must go on all the same
            log.warning("job %d: its measurements could not be kept: %s", job.id, error)

    async def _start(self, run: RunFolder, job_id: int, attempt: int) -> Worker:
        lock = try_lock(run.lock)
        if lock is None:
            raise Busy("job.live", id=job_id)
        held = [lock]
        try:
            output = await _lock_output(Path(self._files.record(job_id).output))
            if output is not None:
                held.append(output)
            known = self._files.watermark.known(job_id)
            floor = seq_floor(run, known, event_file.last_seq(run.events))
            plan = self._current(job_id).plan
            assert plan is not None  # a job is only launched with one
            documents.write(run.plan, plan)
            write_launch(run, "train", attempt, floor)
            return await self._supervisor.start(
                run, "train", lock=lock, lease=self._lease.descriptor, output=output
            )
        finally:
            for descriptor in held:
                os.close(descriptor)

    async def _follow(self, job_id: int, worker: Worker) -> None:
        feed = self._files.feed(job_id)
        ended = asyncio.ensure_future(worker.ended())
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=FOLLOW_SECONDS)
                feed.look()
            await ended
        finally:
            ended.cancel()
        end = await self._retries.until_possible(
            lambda: self.exit_of(self._current(job_id), observed=True)
        )
        log.info("job %d: its worker has ended: %s", job_id, end)
        await _let_display_sleep(self._current(job_id), end)
        await self.learn(self._current(job_id), end)
        await self._happened(triggers.WorkerEnded(job_id, end))


def _notices(settings: TrainingSettings, attempt: int) -> list[Notice]:
    at_login = agent_path().exists()
    return [*map(Notice, start_notices(host.gather(), settings, attempt, at_login=at_login))]


async def _lock_output(folder: Path) -> int | None:
    """Keep every other home from training in an output folder. Raises Busy.

    None where there is no folder that could be locked: the worker says what is wrong with it.
    """
    try:
        descriptor = await soon(partial(try_lock_folder, folder))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None
    if descriptor is None:
        raise Busy("job.output_busy", output=str(folder))
    return descriptor


async def _let_display_sleep(job: Job, end: WorkerExit) -> None:
    """Let the display sleep where it was waited for in an unattended training, which trains in
    segments: the GPU's watchdog looks at nothing else.
    """
    unattended = job.plan is not None and job.plan.settings.segment_minutes > 0
    if unattended and end.cause is not None and end.cause.code == "job.gpu_watchdog":
        await asyncio.to_thread(let_display_sleep)

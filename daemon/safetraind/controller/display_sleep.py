"""Lets the display sleep after the GPU's watchdog ended an unattended training."""

from __future__ import annotations

from safetraind.host.awake import let_display_sleep
from safetraind.scheduler.state import Job, WorkerExit
from safetraind.storage.bounded_read import bounded


async def let_display_sleep_if_unattended(job: Job, end: WorkerExit) -> None:
    """Let the display sleep if the GPU's watchdog ended a training that runs in segments.

    Such a training is unattended, and the watchdog acts only while a display waits for the GPU.
    """
    unattended = job.plan is not None and job.plan.settings.segment_minutes > 0
    if unattended and end.cause is not None and end.cause.code == "job.gpu_watchdog":
        await bounded("/", let_display_sleep)

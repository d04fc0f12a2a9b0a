"""Gathers the facts of a diagnosis: machine, device (by a worker), a job's history (its events)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from safetrain_shared.errors import SafetrainError
from safetrain_shared.events import Event
from safetrain_shared.history import history
from safetrain_shared.jobs import DEFAULT_MODEL, JobSpec, JobState
from safetrain_shared.packages import PACKAGES
from safetraind.controller.controller import Controller
from safetraind.diagnosis.diagnosis_facts import Facts, JobHistory
from safetraind.host.agents import agent_path, missing_program
from safetraind.models.registry import Models
from safetraind.preflight.gather_facts import gather_facts
from safetraind.preflight.job_preflight import located
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.scheduler.state import Job
from safetraind.storage import event_file
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.storage.job_store import SET_ASIDE
from safetraind.worker_messages.probe_messages import PROBE, Device, ProbeRequest

_PACKAGES = ("safetrain", *(package.distribution for package in PACKAGES))
_TROUBLE = (JobState.INTERRUPTED, JobState.FAILED)


async def gather(
    controller: Controller, models: Models, launcher: EphemeralWorkers, job_id: int = 0
) -> Facts:
    """Return the facts about job `job_id`; 0: the active job, else the newest, else none.

    The device is tried where `launcher` has the lease. Raises NotFound for an unknown job.
    """
    job = controller.job(job_id) if job_id else _current(controller)
    spec = controller.record(job.id).spec if job else _default_spec(controller)
    model = await bounded(spec.model, _model, models, spec, job)
    machine = await bounded(spec.output, gather_facts, spec, controller.home, model)
    device = await _device(launcher)
    machine = dataclasses.replace(machine, device=device, busy=not launcher.has_lease)
    root, known = controller.home.root, None
    if job:
        known = await bounded(root, _history, controller, job, spec, seconds=SLOW_SECONDS)
    jobs = controller.scheduler.jobs.values()
    return Facts(
        spec=spec,
        machine=machine,
        history=known,
        waiting=len(controller.scheduler.waiting),
        failed=sum(other.state is JobState.FAILED for other in jobs),
        set_aside=sum(other.cause is not None and other.cause.code == SET_ASIDE for other in jobs),
        at_login=agent_path().exists(),
        agent_python_gone=missing_program(),
        versions={name: _version(name) for name in _PACKAGES},
    )


def job_history(events: Iterable[Event], job: Job, spec: JobSpec) -> JobHistory:
    """Return the history of `job` from its events, in their order."""
    known = history(events)
    ordered = known.steps
    return JobHistory(
        id=job.id,
        state=job.state,
        spec=spec,
        plan=job.plan,
        troubles=tuple(one.finding for one in known.troubles if one.state in _TROUBLE),
        notices=tuple(one.finding for one in known.notices),
        losses=tuple(step.loss for step in ordered),
        rates=tuple(step.learning_rate for step in ordered),
        evaluations=tuple(known.evaluations),
        speeds=tuple(step.tokens_per_second for step in ordered),
        peak=max((step.peak_memory for step in ordered), default=0),
        cause=job.cause,
    )


def _history(controller: Controller, job: Job, spec: JobSpec) -> JobHistory:
    path = controller.home.run(job.id).events
    return job_history((read.event for read in event_file.read(path)), job, spec)


def _current(controller: Controller) -> Job | None:
    if controller.scheduler.active is not None:
        return controller.scheduler.active
    return max(controller.scheduler.jobs.values(), key=lambda job: job.id, default=None)


def _default_spec(controller: Controller) -> JobSpec:
    """Return the spec of a job with default settings."""
    return JobSpec(DEFAULT_MODEL, train="", valid="", output=str(controller.home.root))


def _model(models: Models, spec: JobSpec, job: Job | None) -> Path | None:
    if job is not None and job.plan is not None:
        return Path(job.plan.model_path)
    try:
        return located(models.resolve(spec.model))
    except SafetrainError:
        return Path(spec.model) if Path(spec.model).is_absolute() else None


async def _device(launcher: EphemeralWorkers) -> Device | None:
    """Return the device that a probe worker computed on; None where no worker could run."""
    if not launcher.has_lease:
        return None
    ended = await launcher.run_worker(PROBE, ProbeRequest(), lease=True)
    return ended.result.device if ended.result else None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""

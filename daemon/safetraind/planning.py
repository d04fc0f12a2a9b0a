"""Between queue and preflight: checks at submit, the probe and the frozen plan at a job's turn."""

from __future__ import annotations

import asyncio
from pathlib import Path

from safetrain_shared.errors import Blocked, Broken, error_from_dict
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import Home
from safetraind.models import Models, Source, hub_snapshot
from safetraind.preflight.course import Course
from safetraind.preflight.quick import quick
from safetraind.processes.launcher import Launcher


class Planning:
    """Preflight as the queue needs it."""

    def __init__(self, home: Home, models: Models) -> None:
        self._home = home
        self._models = models

    async def quick(self, spec: JobSpec) -> list[Finding]:
        """What needs no worker. Raises Blocked with the first finding that blocks."""
        folder = located(self._models.resolve(spec.model))
        findings = await asyncio.to_thread(quick, spec, self._home, folder)
        for finding in findings:
            if is_blocking(finding):
                raise Blocked(finding.code, **finding.args)
        return findings

    async def check(self, spec: JobSpec, launcher: Launcher) -> Plan | Finding:
        """The whole course: the plan, or what blocks the training."""
        course = self.course(spec, launcher, await self.model(spec, launcher))
        async for _ in course.run():
            pass
        if course.plan is not None:
            return course.plan
        blocking = [finding for finding in course.findings if is_blocking(finding)]
        return blocking[0] if blocking else course.findings[-1]

    def course(self, spec: JobSpec, launcher: Launcher, model: Path) -> Course:
        """The course of a job whose model is in the folder `model`."""
        return Course(spec, launcher, self._home, model)

    async def model(self, spec: JobSpec, launcher: Launcher) -> Path:
        """The model's folder, fetched first where the hub has it and we do not.

        Raises what `Models.resolve` and the hub raise.
        """
        source = self._models.resolve(spec.model)
        return located(source) or await fetch(source.path, launcher)

    def is_here(self, spec: JobSpec) -> bool:
        """Whether the model is on this machine. Raises what `Models.resolve` raises."""
        return located(self._models.resolve(spec.model)) is not None


def located(source: Source) -> Path | None:
    """The model's folder on this machine; None where it is still at the hub."""
    return hub_snapshot(source.path) if source.hub else Path(source.path)


async def fetch(repository: str, launcher: Launcher) -> Path:
    """Downloads a repository of the hub in a child process. Raises what the hub raised."""
    ended = await launcher.run_worker("fetch", {"repository": repository}, lease=False)
    if ended.result is None:
        raise Broken("daemon.broken", reason=f"fetch: {dict(ended.exit)}", log=ended.log)
    if "error" in ended.result:
        raise error_from_dict(ended.result["error"])
    return Path(ended.result["path"])


def is_blocking(finding: Finding) -> bool:
    """Whether nothing can be trained until it is mended."""
    return finding.blocks and finding.status is Status.FAILED

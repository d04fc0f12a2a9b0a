"""Connects queue and preflight: the forecast at submit, probe and plan at a job's turn."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from safetrain_shared.errors import ArgValue, Blocked, Broken, SafetrainError
from safetrain_shared.findings import Finding, Status, finding_of
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import Home
from safetrain_shared.settings import FIELDS
from safetraind.models.registry import Models, Source, hub_snapshot
from safetraind.planner import choose_plan
from safetraind.planner.batch_shapes import padded_tokens
from safetraind.planner.candidates import rows_an_epoch
from safetraind.planner.facts import Facts
from safetraind.preflight.gather_facts import gather_facts
from safetraind.preflight.inspection_cache import CachingWorkers, InspectionCache
from safetraind.preflight.preflight_run import PreflightRun
from safetraind.preflight.submit_checks import noteworthy, quick
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.processes.supervisor import Supervisor
from safetraind.storage import training_state
from safetraind.storage.bounded_read import bounded
from safetraind.storage.job_document import NOT_THE_TRAINING, Forecast
from safetraind.worker_messages.fetch_messages import FETCH, FetchLine, FetchRequest
from safetraind.worker_messages.role import WorkerProgress

# A submit reads the data for at most so long; what it has not seen waits for the job's turn.
FORESEE_SECONDS = 20.0
_HUB_SECONDS = 60.0  # a hub that does not answer by then is left to the turn, too
# Predictions came out up to 30 % too high: only what is refused with so much more room is rejected
# unmeasured.
_SURELY = 1.4
# They change how a step is computed, not what it computes.
_FREE_IN_GOING_ON = frozenset(
    {"batch_size", "gradient_accumulation", "gradient_checkpointing", "loss_chunk", "dequantize"}
) | frozenset(NOT_THE_TRAINING)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The findings and predictions of the checks at submit."""

    findings: tuple[Finding, ...] = ()
    forecast: Forecast = field(default_factory=Forecast)


class Planning:
    """The preflight of queued jobs."""

    def __init__(self, home: Home, models: Models, supervisor: Supervisor) -> None:
        self._home = home
        self._models = models
        self._supervisor = supervisor
        self._inspections = InspectionCache()
        self.phase = ""

    async def foresee(self, spec: JobSpec, *, idle: bool) -> Foreseen:
        """Return what can be known without the GPU.

        Raises Blocked with the first finding that blocks, and the hub's error for a missing model
        that cannot be downloaded. `idle`: judge by the memory that is free now; else by all memory
        of the machine. Large files are read for FORESEE_SECONDS. The rest is read when the job's
        turn comes.
        """
        folder = await bounded(spec.model, self._folder, spec.model)
        facts = await bounded(spec.output, gather_facts, spec, self._home, folder)
        if not idle:
            facts = _left_alone(facts)
        _reject(quick(spec, facts))
        launcher = EphemeralWorkers(self._home, self._supervisor)
        if folder is None:
            await _obtainable(spec.model, launcher)
        workers = self._inspections.through(launcher)
        preflight_run = PreflightRun(spec, workers, self._home, folder, facts=facts)
        try:
            async with asyncio.timeout(FORESEE_SECONDS), aclosing(preflight_run.judged()) as judged:
                async for _ in judged:
                    pass
        except TimeoutError:
            _reject(_seen_so_far(workers.problems))
            return Foreseen((*noteworthy(preflight_run.findings), Finding("data.not_inspected")))
        return _forecast(preflight_run)

    async def check(self, spec: JobSpec, launcher: EphemeralWorkers) -> Plan | Finding:
        """Run a complete preflight. Return the plan, or the finding that blocks the training.

        A training that continues under a new plan keeps all that its schedule depends on. `phase`
        has the preflight's phase meanwhile.
        """
        try:
            return await self._checked(spec, launcher)
        finally:
            self.phase = ""

    async def _checked(self, spec: JobSpec, launcher: EphemeralWorkers) -> Plan | Finding:
        self.phase = "checking"
        model = await bounded(spec.model, self._folder, spec.model)
        try:
            if model is None:
                self.phase = "downloading"
                model = await _fetched(spec.model, launcher)
        except SafetrainError as error:  # no room either: it is not the job's disk that is full
            return finding_of(error)
        spec, effective_batch = await bounded(spec.output, _going_on, spec)
        workers = self._inspections.through(launcher)
        preflight_run = PreflightRun(
            spec, workers, self._home, model, effective_batch=effective_batch
        )
        async for step in preflight_run.run():
            if isinstance(step, WorkerProgress):
                self.phase = step.phase
        if preflight_run.plan is not None:
            return preflight_run.plan
        blocking = [finding for finding in preflight_run.findings if is_blocking(finding)]
        return blocking[0] if blocking else preflight_run.findings[-1]

    def _folder(self, model: str) -> Path | None:
        """Return the model's folder; None where it is still at the hub."""
        return located(self._models.resolve(model))

    def preflight_run(
        self, spec: JobSpec, launcher: EphemeralWorkers, *, thorough: bool = False
    ) -> PreflightRun:
        """Return a preflight to run; a model that is not on this machine is fetched on the way.

        Raises what `Models.resolve` raises.
        """
        source = self._models.resolve(spec.model)
        bring = partial(fetch, source.path, launcher)
        workers: CachingWorkers = self._inspections.through(launcher)
        return PreflightRun(
            spec, workers, self._home, located(source), bring=bring, thorough=thorough
        )


def located(source: Source) -> Path | None:
    """Return the model's folder on this machine; None where it is still at the hub."""
    return hub_snapshot(source.path) if source.hub else Path(source.path)


async def fetch(
    repository: str, launcher: EphemeralWorkers
) -> AsyncGenerator[WorkerProgress | int | Path, None]:
    """Download a repository of the hub in a child process. Yield its size in bytes, the progress,
    and last its folder.

    Raises the hub's error, NoRoom before the download where the disk is too small, and Broken where
    the child dies without an answer.
    """
    lines: asyncio.Queue[FetchLine | None] = asyncio.Queue()
    request = FetchRequest(repository)
    work = asyncio.create_task(
        launcher.run_worker(FETCH, request, lease=False, on_progress=lines.put_nowait)
    )
    work.add_done_callback(lambda _: lines.put_nowait(None))
    try:
        yield WorkerProgress("downloading")
        while (line := await lines.get()) is not None:
            if line.bytes is not None:
                yield line.bytes
            elif line.done is not None:
                yield WorkerProgress("downloading", line.done)
        ended = await work
    finally:
        work.cancel()
    if (result := ended.result) is None:
        raise Broken("daemon.broken", reason=f"fetch: {ended.how}", log=ended.log)
    yield Path(result.path)


async def _obtainable(repository: str, launcher: EphemeralWorkers) -> None:
    """Ask the hub for a repository's size, without a download.

    Raises the hub's error, and NoRoom where the disk is too small. A hub that does not answer
    within _HUB_SECONDS is asked again when the job's turn comes.
    """
    request = FetchRequest(repository, dry_run=True)
    try:
        async with asyncio.timeout(_HUB_SECONDS):
            ended = await launcher.run_worker(FETCH, request, lease=False)
    except TimeoutError:
        return
    if isinstance(ended.answer, SafetrainError):
        raise ended.answer


async def _fetched(repository: str, launcher: EphemeralWorkers) -> Path:
    last = [step async for step in fetch(repository, launcher)][-1]
    assert isinstance(last, Path)
    return last


def is_blocking(finding: Finding) -> bool:
    """Return whether the finding prevents any training."""
    return finding.blocks and finding.status is Status.FAILED


def _reject(findings: list[Finding]) -> None:
    for finding in findings:
        if is_blocking(finding):
            raise Blocked(finding.code, **finding.args)


def _seen_so_far(problems: Sequence[Finding]) -> list[Finding]:
    """Return the problems found so far in files that were not read to their end, worded as by a
    whole preflight.
    """
    wrong = [problem for problem in problems if problem.status is Status.FAILED]
    if not wrong or wrong[0].blocks:
        return wrong
    path = str(wrong[0].args["path"])
    count = sum(finding.args["path"] == path for finding in wrong)
    where: dict[str, ArgValue] = {"name": Path(path).name, "path": path}
    args = {**where, "count": count, "line": wrong[0].args["line"]}
    return [Finding("data.errors", Status.FAILED, True, args)]


def _left_alone(facts: Facts) -> Facts:
    """Return the facts for a machine whose memory nothing else uses: what uses it now may have
    ended when the job starts.
    """
    host = facts.host
    free = dataclasses.replace(host, memory_free=host.memory_usable, limit_used=0, swap_used=0)
    return dataclasses.replace(facts, host=free)


def _forecast(preflight_run: PreflightRun) -> Foreseen:
    """Return the preflight's findings and prediction. Raises Blocked."""
    *others, last = preflight_run.findings
    if last.code.startswith("plan.refused") and not _is_sure(preflight_run):
        preflight_run.findings[:] = [*others, dataclasses.replace(last, status=Status.WARNING)]
    _reject(preflight_run.findings)
    findings, plan, question = (
        noteworthy(preflight_run.findings),
        preflight_run.plan,
        preflight_run.question,
    )
    if plan is None or question is None:
        return Foreseen(tuple(findings))
    tokens, _ = padded_tokens(question.lengths, plan.settings, plan.length_bucket)
    rows = rows_an_epoch(question, plan.settings, plan.length_bucket)
    epochs = plan.total_steps / max(1, -(-rows // plan.settings.effective_batch))
    scale = question.lengths.scale * epochs
    return Foreseen((*findings, *plan.reasons[-1:]), Forecast(plan, tokens * scale))


def _is_sure(preflight_run: PreflightRun) -> bool:
    """Return whether a refusal stands unmeasured: with more room it would not fit either."""
    question = preflight_run.question
    if question is None or preflight_run.measures:
        return True
    budget = dataclasses.replace(question.budget, mlx=int(_SURELY * question.budget.mlx))
    return isinstance(choose_plan.plan(dataclasses.replace(question, budget=budget)), Finding)


def _going_on(spec: JobSpec) -> tuple[JobSpec, int]:
    """Return the settings and the effective batch of the training in the output folder, if it can
    continue.

    Else return the specification unchanged, and 0.
    """
    state = training_state.read(Path(spec.output))
    if state is None or not state.checkpoints or not state.plan:
        return spec, 0
    settings = state.plan.settings
    standing = {name: getattr(settings, name) for name in FIELDS if name not in _FREE_IN_GOING_ON}
    chosen = {k: v for k, v in spec.settings.items() if getattr(settings, k) == v}
    spec = dataclasses.replace(spec, settings={**chosen, **standing})
    return spec, settings.effective_batch

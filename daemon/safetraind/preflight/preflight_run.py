"""One preflight: gathers facts, judges section by section, plans, measures, reports.

All I/O of a preflight is in this module; `check`, `checks` and `planner` decide.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from safetrain_shared.errors import SafetrainError
from safetrain_shared.findings import SECTIONS, Finding, Status, finding_of
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import Home
from safetraind import host
from safetraind.models.model_config import read_model
from safetraind.planner import choose_plan
from safetraind.planner.facts import Facts
from safetraind.planner.make_room import make_room
from safetraind.planner.option import Question
from safetraind.planner.suggest import smaller_model
from safetraind.preflight import report_files
from safetraind.preflight.check import carry_out
from safetraind.preflight.checks import of_section
from safetraind.preflight.gather_facts import gather_facts
from safetraind.preflight.inspection import Problems, data_from, inspect_request, inspection_end
from safetraind.preflight.measuring import Measuring
from safetraind.preflight.probing import PROBE_SECONDS, THOROUGH_SECONDS
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.worker_messages.inspect_messages import INSPECT, InspectLine, Package
from safetraind.worker_messages.probe_messages import Measure
from safetraind.worker_messages.role import WorkerProgress
from safetraind.worker_messages.worker_result import Workers

_MOST_INSPECTIONS = 3


@dataclass(frozen=True, slots=True)
class SectionStarted:
    """A section of the seven begins."""

    section: str


PROBING = WorkerProgress("probing")  # next comes what needs the GPU


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The plan, and whether its peak was measured on this machine."""

    plan: Plan
    measured: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """The counts of a preflight's findings, and its files. A path is empty where nothing could be
    written.
    """

    passed: int
    failed: int
    warnings: int
    blocked: bool
    report_path: str
    config_path: str


Step = SectionStarted | Finding | WorkerProgress | Recommendation | Summary
# Brings the model here: its bytes once they are known, progress, and last its folder. Raises
# SafetrainError.
Bring = Callable[[], AsyncGenerator[WorkerProgress | int | Path, None]]


class PreflightRun:
    """One preflight of one job's specification; `run` may be iterated once."""

    def __init__(
        self,
        spec: JobSpec,
        workers: Workers,
        home: Home,
        model: Path | None,
        *,
        facts: Facts | None = None,
        bring: Bring | None = None,
        effective_batch: int = 0,
        thorough: bool = False,
    ) -> None:
        """`model`: the folder on this machine, None for one that `bring` downloads.

        `facts`: of `gather`, where they are known already. `effective_batch`: that of a training
        that continues; 0: the planner decides. `thorough`: measuring may take as long as it takes.
        """
        self.spec = spec
        self.plan: Plan | None = None
        self.findings: list[Finding] = []
        self._workers = workers
        self._home = home
        self._failed: set[str] = set()
        self._facts: Facts  # as given, else gathered when it runs
        self._gathered, self._model = facts, model
        self._bring = bring
        seconds = THOROUGH_SECONDS if thorough else PROBE_SECONDS
        self._measuring = Measuring(
            spec, workers, home, effective_batch=effective_batch, seconds=seconds
        )

    @property
    def blocked(self) -> bool:
        """Whether a finding blocks all training."""
        return any(f.blocks and f.status is Status.FAILED for f in self.findings)

    @property
    def measures(self) -> list[Measure]:
        """The measures of this preflight and of earlier ones."""
        return self._measuring.measures

    @property
    def outside(self) -> int:
        """Bytes that a worker takes beside MLX's arrays, by the trials of this preflight."""
        return self._measuring.outside(self._facts)

    @property
    def question(self) -> Question | None:
        """The planner's question; None while data or model are not known well enough."""
        return self._measuring.question(self._facts)

    async def run(self) -> AsyncGenerator[Step, None]:
        """Yield the steps of `judged`, then write the two files and yield the summary."""
        async with aclosing(self.judged()) as judged:
            async for step in judged:
                yield step
        yield await bounded(self.spec.output, self._summarise)

    async def judged(self) -> AsyncGenerator[Step, None]:
        """Yield the sections in order, each followed by its findings. Writes nothing."""
        facts = self._gathered
        if facts is None:
            model = self._model
            facts = await bounded(self.spec.output, gather_facts, self.spec, self._home, model)
        self._facts = facts
        inspection = asyncio.create_task(self._inspect())
        try:
            for section in SECTIONS:
                yield SectionStarted(section)
                async with aclosing(self._gather_for(section, inspection)) as gathered:
                    async for step in gathered:
                        yield step
                for finding in self._judge(section):
                    yield finding
                if section == "recommendation":
                    for step in await self._recommend():
                        yield step
        finally:
            inspection.cancel()

    async def _gather_for(
        self, section: str, inspection: asyncio.Task[None]
    ) -> AsyncGenerator[Step, None]:
        """Gather the facts that a section needs beyond the first ones, and yield the progress."""
        if section == "dependencies":
            yield WorkerProgress("inspecting")
            await inspection
        elif section == "recommendation" and not self.blocked:
            async with aclosing(self._measuring.try_rates(self._facts)) as tried:
                async for progress in tried:
                    yield progress
        elif section in ("gpu", "model"):
            steps = self._probe() if section == "gpu" else self._fetched()
            async with aclosing(steps) as gathered:
                async for step in gathered:
                    yield step

    def _judge(self, section: str) -> list[Finding]:
        """Return the findings of a section; where it is judged once more, those that are new."""
        found = list(carry_out(of_section(section), self.spec, self._facts, self._failed))
        found = [finding for finding in found if finding not in self.findings]
        self.findings += found
        return found

    async def _fetched(self) -> AsyncGenerator[Step, None]:
        """Download the model, then judge again what depends on it: lengths, speed.

        Nothing is downloaded where something blocks already.
        """
        if self._bring is None or self._facts.model.path or self.blocked:
            return
        model = self._facts.model
        try:
            async with aclosing(self._bring()) as brought:
                async for step in brought:
                    if isinstance(step, Path):
                        model = read_model(self.spec.model, step)
                    elif isinstance(step, int):
                        model = dataclasses.replace(model, download=step)
                    else:
                        yield step
        except SafetrainError as error:
            cause = finding_of(error)
            model = dataclasses.replace(model, cause=cause)
        self._facts = dataclasses.replace(self._facts, model=model)
        if not model.path:
            return
        yield WorkerProgress("inspecting")
        await self._inspect()
        for finding in self._judge("data"):
            yield finding
        async with aclosing(self._probe()) as probed:
            async for progress in probed:
                yield progress

    async def _recommend(self) -> list[Finding | Recommendation]:
        question = self.question
        if self.blocked or question is None:
            finding = Finding("plan.none", Status.SKIPPED, section="recommendation")
            self.findings.append(finding)
            return [finding]
        answer = choose_plan.plan(question, self.measures)
        if isinstance(answer, Finding):
            apps = await bounded("/", host.largest_apps, seconds=SLOW_SECONDS)
            found = [answer, *make_room(answer, self.spec, self._facts, apps, self.outside)]
            found += smaller_model(answer, question)
            self.findings += found
            return [*found]
        self.plan = answer
        return [Recommendation(answer, measured=bool(answer.measured_peak))]

    async def _inspect(self) -> None:
        problems = Problems()
        packages: Mapping[str, Package] = {}

        def note(line: InspectLine) -> None:
            nonlocal packages
            packages = line.packages or packages
            problems.note(line)

        model = self._facts.model
        complete = "" if model.missing or model.reason else model.path
        vocabulary = model.shape.vocabulary if model.shape else 0
        request = inspect_request(self.spec, complete, vocabulary)
        for _ in range(_MOST_INSPECTIONS):
            ended = await self._workers.run_worker(INSPECT, request, lease=False, on_progress=note)
            if ended.answer is not None or ended.limit or not ended.exit.signal:
                break  # killed from outside, it is tried again
        result = ended.result
        self._facts = dataclasses.replace(
            self._facts,
            packages=result.packages if result else packages,
            data=data_from(result, problems.kept) if result else None,
            inspection_end=None if result else inspection_end(ended),
        )

    async def _probe(self) -> AsyncGenerator[Step, None]:
        """Fill in device, loading and measures: from what is known, else by probing."""
        yield PROBING
        loads_only = self.blocked or self._data_blocks()
        async with aclosing(self._measuring.run(self._facts, loads_only=loads_only)) as measuring:
            async for step in measuring:
                if isinstance(step, Facts):
                    self._facts = step
                else:
                    yield step

    def _data_blocks(self) -> bool:
        """Return whether the data section, judged later, will block."""
        found = carry_out(of_section("data"), self.spec, self._facts, set(self._failed))
        return any(f.blocks and f.status is Status.FAILED for f in found)

    def _summarise(self) -> Summary:
        counts = Counter(str(finding.status) for finding in self.findings)
        content = report_files.report(self.spec, self._facts, self.findings, self.plan, counts)
        paths = "", ""
        if not self._facts.disk.unwritable:
            try:
                paths = report_files.write_files(Path(self.spec.output), content, self.plan)
            except OSError:
                pass  # the disk filled up meanwhile; the findings were delivered all the same
        return Summary(
            passed=counts["passed"],
            failed=counts["failed"],
            warnings=counts["warning"],
            blocked=self.blocked,
            report_path=paths[0],
            config_path=paths[1],
        )

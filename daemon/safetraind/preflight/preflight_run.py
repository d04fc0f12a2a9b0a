"""The course of a preflight: gathers facts, judges section by section, plans, measures, reports.

All acting of preflight meets here; what is decided is decided by `check`, `checks` and `planner`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.errors import ArgValue, SafetrainError
from safetrain_shared.findings import SECTIONS, Finding, Status, finding_of
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import Home, nearest_existing
from safetraind import host
from safetraind.models.model_config import read_model
from safetraind.planner import choose_plan, pilot
from safetraind.planner.budget import LEAST_WORKER_BYTES, WORKER_BYTES, available, budget_for
from safetraind.planner.facts import Disk, Facts, packages_from
from safetraind.planner.make_room import make_room
from safetraind.planner.measurement_cache import MeasurementCache, key_of
from safetraind.planner.next_probe import Setup, next_probe
from safetraind.planner.option import Measure, Question
from safetraind.planner.suggest import largest_fitting
from safetraind.planner.worker_requests import (
    Problems,
    Workers,
    data_from,
    device_from,
    inspect_request,
    inspection_end,
    loaded_from,
    measure_from,
    pilot_request,
    probe_request,
)
from safetraind.preflight import report
from safetraind.preflight.check import carry_out
from safetraind.preflight.checks import of_section
from safetraind.preflight.probing import PROBE_SECONDS, THOROUGH_SECONDS, Progress, Round, run_round
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded

_MOST_ROUNDS = 8
_MOST_INSPECTIONS = 3
_PILOT_START_SECONDS = 120.0  # to load, tokenize and compile, beyond the time for its steps
_MOST_PROBES = 3  # of one round, where somebody else ends them
_OF_THIS_TIME = ("slow", "out_of_memory", "failed")  # not remembered


@dataclass(frozen=True, slots=True)
class SectionStarted:
    """A section of the seven begins."""

    section: str


PROBING = Progress("probing")  # next comes what needs the GPU


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The plan, and whether its peak was measured on this machine."""

    plan: Plan
    measured: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """How it came out. Paths are empty where nothing could be written."""

    passed: int
    failed: int
    warnings: int
    blocked: bool
    report_path: str
    config_path: str


Step = SectionStarted | Finding | Progress | Recommendation | Summary
# Brings the model here: its bytes once they are known, progress, and last its folder. Raises
# SafetrainError.
Bring = Callable[[], AsyncGenerator[Progress | int | Path, None]]


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
        that goes on; 0: the planner decides. `thorough`: measuring may take as long as it takes.
        """
        self.spec = spec
        self.plan: Plan | None = None
        self.findings: list[Finding] = []
        self._workers = workers
        self._home = home
        self._failed: set[str] = set()
        self.measures: list[Measure] = []
        self._facts: Facts  # as given, else gathered when it runs
        self._gathered, self._model = facts, model
        self._bring = bring
        self._effective_batch = effective_batch
        self._seconds = THOROUGH_SECONDS if thorough else PROBE_SECONDS
        self._splits_head = True
        self._pilot: pilot.PilotResult | None = None
        self._pilot_failed = False
        self._unsupported: frozenset[str] = frozenset()

    @property
    def blocked(self) -> bool:
        """Something was found that must be mended before anything can be trained."""
        return any(f.blocks and f.status is Status.FAILED for f in self.findings)

    @property
    def outside(self) -> int:
        """What the worker costs beside MLX's arrays, in bytes.

        The least that was seen: a probe that tries several setups keeps scraps of each.
        """
        seen = [measure.outside for measure in self.measures if measure.outside]
        return max(min(seen), LEAST_WORKER_BYTES) if seen else WORKER_BYTES

    async def run(self) -> AsyncGenerator[Step, None]:
        """`judged`, then the two files and the summary."""
        async with aclosing(self.judged()) as judged:
            async for step in judged:
                yield step
        yield await bounded(self.spec.output, self._summarise)

    async def judged(self) -> AsyncGenerator[Step, None]:
        """The sections in order, each followed by its findings. Writes nothing."""
        facts = self._gathered
        if facts is None:
            facts = await bounded(self.spec.output, gather, self.spec, self._home, self._model)
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
        """What a section needs to know beyond the first facts."""
        if section == "dependencies":
            yield Progress("inspecting")
            await inspection
        elif section in ("gpu", "model", "recommendation"):
            steps = {"gpu": self._probe, "model": self._fetched, "recommendation": self._try_rates}
            async with aclosing(steps[section]()) as gathered:
                async for step in gathered:
                    yield step

    def _judge(self, section: str) -> list[Finding]:
        """The findings of a section; where it is judged once more, those that are new."""
        found = list(carry_out(of_section(section), self.spec, self._facts, self._failed))
        found = [finding for finding in found if finding not in self.findings]
        self.findings += found
        return found

    async def _fetched(self) -> AsyncGenerator[Step, None]:
        """Downloads the model, then looks again at what only the model tells: lengths, speed.

        Not where something blocks already: gigabytes would come for nothing.
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
        yield Progress("inspecting")
        await self._inspect()
        for finding in self._judge("data"):
            yield finding
        async with aclosing(self._probe()) as probed:
            async for progress in probed:
                yield progress

    async def _try_rates(self) -> AsyncGenerator[Step, None]:
        """Runs the pilot, where one is wanted and its rate would be used."""
        question, chosen = self.question, self.spec.settings
        wanted = self.spec.complete_settings.pilot_minutes and "learning_rate" not in chosen
        if not wanted or self._effective_batch or self.blocked or question is None:
            return
        plan = choose_plan.plan(question, self.measures)
        if isinstance(plan, Finding) or not self._workers.has_lease:
            return
        request = pilot_request(self.spec, plan, pilot.rates(plan.settings.learning_rate))
        yield Progress("pilot")
        seconds = _PILOT_START_SECONDS + request["seconds"]
        async with aclosing(run_round(self._workers, request, seconds, "pilot")) as run:
            async for step in run:
                if isinstance(step, Progress):
                    yield step
                else:
                    result = (step.ended.result if step.ended else None) or {}
                    self._pilot = pilot.result_from(result)
        self._pilot_failed = self._pilot is None

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
            found += _smaller_model(answer, question)
            self.findings += found
            return [*found]
        self.plan = answer
        return [Recommendation(answer, measured=bool(answer.measured_peak))]

    async def _inspect(self) -> None:
        problems = Problems()
        packages: dict[str, Any] = {}

        def note(line: Mapping[str, Any]) -> None:
            packages.update(line.get("packages", {}))
            problems.note(line)

        model = self._facts.model
        whole = "" if model.missing or model.reason else model.path
        vocabulary = model.shape.vocabulary if model.shape else 0
        request = inspect_request(self.spec, whole, vocabulary)
        for _ in range(_MOST_INSPECTIONS):
            ended = await self._workers.run_worker(
                "inspect", request, lease=False, on_progress=note
            )
            if ended.result is not None or ended.limit or not ended.exit.get("signal"):
                break  # killed from outside, it is tried again
        result = ended.result or {}
        found = [from_plain(problem, Finding) for problem in problems.kept]
        data = data_from(result, found) if ended.result else None
        # They come first, so that they are known though the worker dies for want of one.
        packages = result.get("packages") or packages
        self._facts = dataclasses.replace(
            self._facts,
            packages=packages_from(packages),
            data=data,
            inspection_end=None if data is not None else inspection_end(ended),
        )

    async def _probe(self) -> AsyncGenerator[Step, None]:
        """Fills in device, loading and measures: from what was learned, else by probing."""
        yield PROBING
        learned = MeasurementCache(self._home.learned, key_of(self._facts))
        known = learned.recall()
        if known is not None:
            self._take(known)
            if "loaded" in known and not self._next_setups():
                return
        if not self._workers.has_lease:
            self._facts = dataclasses.replace(self._facts, busy=True)
            return
        async with aclosing(self._rounds(learned)) as rounds:
            async for step in rounds:
                yield step
        if self._is_measured():  # what was too slow would have been better to know, no more
            self._facts = dataclasses.replace(self._facts, too_slow=0.0)

    async def _rounds(self, learned: MeasurementCache) -> AsyncGenerator[Step, None]:
        """Probes until nothing more could change the plan, or the time for it is over."""
        end = time.monotonic() + self._seconds
        for number in range(_MOST_ROUNDS):
            setups = self._next_setups()
            left = end - time.monotonic()
            if number and (not setups or left <= 0):
                return
            done = Round()
            for _ in range(_MOST_PROBES):
                request = self._request(setups, left)
                async with aclosing(run_round(self._workers, request, left)) as run:
                    async for step in run:
                        if isinstance(step, Progress):
                            yield step
                        else:
                            done = step
                if not done.is_interrupted:
                    break
            known = self._unsupported
            self._conclude(done, learned)
            learned_more = done.found["measures"] or self._unsupported != known
            if not (done.found["died"] or (done.is_whole and learned_more)):
                return
            if "slow" in done.found:
                return

    def _is_measured(self) -> bool:
        question = self.question
        plan = None if question is None else choose_plan.plan(question, self.measures)
        return isinstance(plan, Plan) and plan.measured_peak > 0

    def _next_setups(self) -> list[Setup]:
        """What a probe should run next.

        Nothing where there is no question, it is answered, or something blocks already: the model
        is then loaded, to find what else is wrong, and no step is measured.
        """
        question = self.question
        if question is None or self.blocked or self._data_blocks():
            return []
        return next_probe(question, self.measures)

    def _data_blocks(self) -> bool:
        """Whether the data section, judged later, will block."""
        found = carry_out(of_section("data"), self.spec, self._facts, set(self._failed))
        return any(f.blocks and f.status is Status.FAILED for f in found)

    def _request(self, setups: Sequence[Setup], seconds: float) -> dict[str, Any]:
        question = self.question
        if question is None:
            return {"model": ""}
        return probe_request(self.spec, self._facts.model.path, setups, question.budget, seconds)

    def _conclude(self, done: Round, learned: MeasurementCache) -> None:
        """Takes in what a round found, and keeps what holds for the next time as well."""
        limit = self.question.budget.limit if self.question else 0
        done.judge_end(self._facts.model.path, limit)
        done.found["measures"] = [{**m, "limit": limit} for m in done.found["measures"]]
        self._take(done.found)
        if any(done.found.get(kind) for kind in ("measures", "died", "unsupported")):
            model = {"model": self.spec.model, "shape": to_plain(self._facts.model.shape)}
            kept = {k: v for k, v in done.found.items() if k not in _OF_THIS_TIME}
            learned.keep({**kept, **model})

    def _take(self, found: Mapping[str, Any]) -> None:
        device = device_from(found["device"]) if "device" in found else self._facts.device
        loaded = loaded_from(found) or self._facts.loaded
        slow = max(found.get("slow", 0.0), self._seconds) if "slow" in found else 0.0
        self.measures += [measure_from(m) for m in found["measures"]]
        self.measures += [measure_from(m, died=True) for m in found["died"]]
        self._splits_head = found.get("splits_head", self._splits_head)
        self._unsupported |= set(found.get("unsupported", ()))
        self._facts = dataclasses.replace(
            self._facts, device=device, loaded=loaded, too_slow=slow or self._facts.too_slow
        )

    @property
    def question(self) -> Question | None:
        """What the planner is asked; None while data or model say too little."""
        data, model = self._facts.data, self._facts.model
        if data is None or data.train is None or data.train.lengths is None:
            return None
        if model.shape is None or not data.train.lengths.counted:
            return None
        device = self._facts.device
        return Question(
            spec=self.spec,
            shape=model.shape,
            quantized=bool(model.bits),
            model_path=model.path,
            lengths=data.train.lengths,
            samples=data.train.samples,
            text_only=data.train.format == "text",
            available=available(self.spec, self._facts),
            budget=budget_for(self.spec, self._facts, self.outside),
            device=device.kind if device else ("metal" if self._facts.host.is_mac else "cpu"),
            valid=data.valid.lengths if data.valid else None,
            largest_buffer=device.largest_buffer if device else 0,
            resources=device.resources if device else 0,
            effective_batch=self._effective_batch,
            splits_head=self._splits_head,
            pilot=self._pilot,
            pilot_failed=self._pilot_failed,
            unsupported=self._unsupported,
        )

    def _summarise(self) -> Summary:
        counts = Counter(str(finding.status) for finding in self.findings)
        content = report.report(self.spec, self._facts, self.findings, self.plan, counts)
        paths = "", ""
        if not self._facts.disk.unwritable:
            try:
                paths = report.write_files(Path(self.spec.output), content, self.plan)
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


def _smaller_model(refusal: Finding, question: Question) -> list[Finding]:
    """The model of the table that fits instead; none where more memory would not help."""
    if "budget" not in refusal.args:
        return []
    try:
        fitting = largest_fitting(question)
    except LookupError:
        return []
    args: dict[str, ArgValue] = {"model": fitting.model.repository, "peak": fitting.peak}
    return [Finding("plan.smaller_model", args=args, section="recommendation")]


def gather(spec: JobSpec, home: Home, model: Path | None) -> Facts:
    """The facts that need no worker; `model`: its folder, None for one that is not here yet.

    Takes some milliseconds, on macOS some hundreds.
    """
    return Facts(
        host=host.gather(),
        disk=_disk(spec.output, home),
        model=read_model(spec.model, model),
        python=platform.python_version(),
        compiler=shutil.which("g++") or "",
        openblas=host.find_openblas(),
    )


def _disk(output: str, home: Home) -> Disk:
    folder, models = nearest_existing(Path(output)), nearest_existing(home.models)
    unwritable = "" if os.access(folder, os.W_OK) else os.strerror(13)
    if not folder.is_dir():
        unwritable = os.strerror(20)  # ENOTDIR
    return Disk(
        output=output,
        free=shutil.disk_usage(folder).free,
        models_free=shutil.disk_usage(models).free,
        same_disk=folder.stat().st_dev == models.stat().st_dev,
        unwritable=unwritable,
    )

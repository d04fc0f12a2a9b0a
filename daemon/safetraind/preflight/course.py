"""The course of a preflight: gathers facts, judges section by section, plans, measures, reports.

All acting of preflight meets here; what is decided is decided by `check`, `checks` and `planner`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import platform
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetrain_shared.findings import SECTIONS, Finding, Status
from safetrain_shared.jobs import JobSpec, Plan, finding_from_dict
from safetrain_shared.paths import Home
from safetraind import host
from safetraind.preflight import planner, report
from safetraind.preflight.budget import LEAST_WORKER_BYTES, WORKER_BYTES, budget_for
from safetraind.preflight.check import carry_out
from safetraind.preflight.checks import of_section
from safetraind.preflight.facts import Disk, Facts, packages_from
from safetraind.preflight.learned import Learned, key_of
from safetraind.preflight.model_folder import read_model
from safetraind.preflight.option import ESTIMATED, Measure, Option, Question
from safetraind.preflight.workers import (
    Ended,
    Workers,
    data_from,
    device_from,
    inspect_request,
    loaded_from,
    measure_from,
    probe_request,
)

# A probe may die of what it tries; each try is leaner than the one that died.
_MOST_PROBES = 3
_MOST_REHEARSED = 24
_PROBE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class SectionStarted:
    """A section of the seven begins."""

    section: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, and how much of it: 0 to 1, negative where nobody knows."""

    phase: str
    done: float = -1.0


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


class Course:
    """One preflight of one job's specification; `run` may be iterated once."""

    def __init__(
        self, spec: JobSpec, workers: Workers, home: Home, model: Path | None, download: int = 0
    ) -> None:
        """`model`: the folder on this machine, None for one to be downloaded (`download` bytes)."""
        self.spec = spec
        self.plan: Plan | None = None
        self.findings: list[Finding] = []
        self._workers = workers
        self._home = home
        self._failed: set[str] = set()
        self.measures: list[Measure] = []
        self._facts = gather(spec, home, model, download)

    @property
    def blocked(self) -> bool:
        """Something was found that must be mended before anything can be trained."""
        return any(f.blocks and f.status is Status.FAILED for f in self.findings)

    @property
    def outside(self) -> int:
        """What the worker costs beside MLX's arrays, in bytes.

        The least that was seen: a probe that tries several setups keeps scraps of each.
        """
        seen = [m.outside for m in self.measures if m.outside]
        return max(min(seen), LEAST_WORKER_BYTES) if seen else WORKER_BYTES

    async def run(self) -> AsyncIterator[Step]:
        """The sections in order, each followed by its findings; last the summary."""
        inspection = asyncio.create_task(self._inspect())
        try:
            for section in SECTIONS:
                yield SectionStarted(section)
                if section == "dependencies":
                    yield Progress("inspecting")
                    await inspection
                if section == "gpu":
                    yield Progress("probing")
                    await self._probe()
                for finding in self._judge(section):
                    yield finding
                if section == "recommendation":
                    for step in self._recommend():
                        yield step
        finally:
            inspection.cancel()
        yield self._summarise()

    def _judge(self, section: str) -> list[Finding]:
        found = list(carry_out(of_section(section), self.spec, self._facts, self._failed))
        self.findings += found
        return found

    def _recommend(self) -> list[Finding | Recommendation]:
        question = self.question
        if self.blocked or question is None:
            finding = Finding("plan.none", Status.SKIPPED, section="recommendation")
            self.findings.append(finding)
            return [finding]
        answer = planner.plan(question, self.measures)
        if isinstance(answer, Finding):
            self.findings.append(answer)
            return [answer]
        self.plan = answer
        return [Recommendation(answer, measured=bool(answer.measured_peak))]

    async def _inspect(self) -> None:
        problems: list[Finding] = []

        def note(line: Mapping[str, Any]) -> None:
            if "problem" in line and len(problems) < 100:
                problems.append(finding_from_dict(line["problem"]))

        model = self._facts.model
        whole = "" if model.missing or model.reason else model.path
        request = inspect_request(self.spec, whole)
        ended = await self._workers.run_worker("inspect", request, lease=False, on_progress=note)
        result = ended.result or {}
        packages = packages_from(result.get("packages", {}))
        data = data_from(result, problems) if ended.result else None
        self._facts = dataclasses.replace(self._facts, packages=packages, data=data)

    async def _probe(self) -> None:
        """Fills in device, loading and measures: from what was learned, else by probing."""
        learned = Learned(self._home.learned, key_of(self._facts))
        known = learned.recall()
        if known is not None:
            self._take(known)
            answer = self._answer()
            if answer is None or (isinstance(answer, Plan) and answer.measured_peak):
                return
        if not self._workers.has_lease:
            self._facts = dataclasses.replace(self._facts, busy=True)
            return
        for _ in range(_MOST_PROBES):
            found, ended = await self._run_probe()
            if "device" not in found:
                found["device"] = {"kind": "?", "works": False, "reason": _how(ended)}
            self._take(found)
            if "loaded" in found and found["measures"]:
                learned.keep(found)
            if ended.result is None and "trying" in found:
                self._note_death(found["trying"])
                continue
            answer = self._answer()
            if ended.result is None or not isinstance(answer, Plan) or answer.measured_peak:
                return

    async def _run_probe(self) -> tuple[dict[str, Any], Ended]:
        found: dict[str, Any] = {"measures": [], "rehearsed": []}

        def note(line: Mapping[str, Any]) -> None:
            for kind, value in line.items():
                if kind in ("measures", "rehearsed"):
                    found[kind].append(value)
                else:
                    found[kind] = value

        request: dict[str, Any] = {"model": ""}
        question = self.question
        if question is not None:
            request = probe_request(
                self.spec,
                self._facts.model.path,
                self._to_try(question),
                question.budget,
                _PROBE_SECONDS,
            )
        ended = await self._workers.run_worker("probe", request, lease=True, on_progress=note)
        return found, ended

    def _to_try(self, question: Question) -> Sequence[Option]:
        """The best ways first, the leanest one last: it may fit after all."""
        options = planner.options(question, self.measures)
        untried = [option for option in options if option.sureness == ESTIMATED]
        return [*untried[:_MOST_REHEARSED], planner.smallest(question, self.measures)]

    def _answer(self) -> Plan | Finding | None:
        """What the planner says by now; None while there is nothing to ask it."""
        question = self.question
        return None if question is None else planner.plan(question, self.measures)

    def _note_death(self, tried: Mapping[str, Any]) -> None:
        """A probe that died measured one thing all the same: this much does not fit."""
        question = self.question
        for option in planner.options(question, self.measures) if question else []:
            step = option.step
            if question and (step.rows, step.width) == (tried["rows"], tried["width"]):
                peak = max(option.peak, question.budget.mlx + 1)
                self.measures.insert(0, Measure(option.settings, step, peak))

    def _take(self, found: Mapping[str, Any]) -> None:
        device = device_from(found["device"]) if "device" in found else self._facts.device
        loaded = loaded_from(found) or self._facts.loaded
        fused = device is not None and device.kind != "cpu"
        seen = [*found["measures"], *found["rehearsed"]]
        self.measures += [measure_from(m, fused=fused) for m in seen]
        self._facts = dataclasses.replace(self._facts, device=device, loaded=loaded)

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
            available=self.spec.memory_budget or self._facts.host.memory_available,
            budget=budget_for(self.spec, self._facts, self.outside),
            device=device.kind if device else ("metal" if self._facts.host.is_mac else "cpu"),
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


def gather(spec: JobSpec, home: Home, model: Path | None, download: int = 0) -> Facts:
    """The facts that need no worker. Takes some milliseconds, on macOS some hundreds."""
    return Facts(
        host=host.gather(),
        disk=_disk(spec.output, home),
        model=read_model(spec.model, model, download),
        python=platform.python_version(),
        compiler=shutil.which("g++") or "",
        openblas=host.find_openblas(),
    )


def _disk(output: str, home: Home) -> Disk:
    folder, models = _existing(Path(output)), _existing(home.models)
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


def _how(ended: Ended) -> str:
    """How a worker ended that should have told more."""
    return ", ".join(f"{key} {value}" for key, value in ended.exit.items() if value) or "-"


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())

"""The measures of one preflight: earlier ones, and probes for those that are missing."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from safetrain_shared.errors import SafetrainError
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import Home
from safetraind.planner import choose_plan
from safetraind.planner.batch_shapes import widths
from safetraind.planner.budget import (
    LEAST_WORKER_BYTES,
    WORKER_BYTES,
    available,
    budget_for,
    trace_bytes,
)
from safetraind.planner.facts import Facts
from safetraind.planner.measurement_cache import MeasurementCache, key_of
from safetraind.planner.next_probe import next_probe
from safetraind.planner.option import Question
from safetraind.planner.pilot import pilot_request
from safetraind.preflight.probing import Round, run_round
from safetraind.worker_messages.pilot_messages import PILOT, PilotResult
from safetraind.worker_messages.probe_messages import Measure, ProbeRequest, ProbeResult, Setup
from safetraind.worker_messages.role import WorkerProgress
from safetraind.worker_messages.worker_result import Workers

_MOST_ROUNDS = 8
_PILOT_START_SECONDS = 120.0  # to load, tokenize and compile, beyond the time for its steps
_MOST_PROBES = 3  # of one round, where a user or the system ends them


class Measuring:
    """The measurements of one preflight, and the planner's question made of them."""

    def __init__(
        self, spec: JobSpec, workers: Workers, home: Home, *, effective_batch: int, seconds: float
    ) -> None:
        """`seconds`: the time limit of all probes together. `effective_batch`: see `Question`."""
        self.measures: list[Measure] = []
        self._spec = spec
        self._workers = workers
        self._home = home
        self._effective_batch = effective_batch
        self._seconds = seconds
        self._splits_head = True
        self._unsupported: frozenset[str] = frozenset()
        self._loads_only = False
        self._pilot: PilotResult | None = None
        self._pilot_failed = False

    def outside(self, facts: Facts) -> int:
        """Return the worker's memory beside MLX's arrays, in bytes, traces included.

        The least that was seen, since a probe that tries several setups keeps remainders of each.
        """
        seen = [measure.outside for measure in self.measures if measure.outside]
        if not seen:
            return WORKER_BYTES
        return max(min(seen), LEAST_WORKER_BYTES) + self._traces(facts)

    def _traces(self, facts: Facts) -> int:
        """Return the bytes of the shapes that the training compiles; 0 where they are not known."""
        data, shape = facts.data, facts.model.shape
        files = (data.train, data.valid) if data is not None else ()
        counted = [file.lengths for file in files if file is not None and file.lengths is not None]
        if shape is None or not counted:
            return 0
        settings = self._spec.complete_settings
        numbers = [widths(lengths, settings) for lengths in counted]
        return trace_bytes(shape.layers, settings.lora_layers, *numbers)

    async def run(
        self, facts: Facts, *, loads_only: bool
    ) -> AsyncGenerator[WorkerProgress | Facts, None]:
        """Probe, yielding progress, and yield last the facts: device, loading and what was too
        slow.

        `loads_only`: something blocks already. The model is loaded, to find other problems, and no
        step is measured.
        """
        self._loads_only = loads_only
        cache = MeasurementCache(self._home.learned, key_of(facts))
        known = cache.recall()
        if known is not None:
            facts = self._take(facts, known)
            if known.loaded is not None and not self._next_setups(facts):
                yield facts
                return
        if not self._workers.has_lease:
            yield dataclasses.replace(facts, busy=True)
            return
        async with aclosing(self._rounds(facts, cache)) as rounds:
            async for step in rounds:
                if isinstance(step, Facts):
                    facts = step
                else:
                    yield step
        if self._is_measured(facts):  # the slow setup would only have added detail
            facts = dataclasses.replace(facts, too_slow=0.0)
        yield facts

    async def _rounds(
        self, facts: Facts, cache: MeasurementCache
    ) -> AsyncGenerator[WorkerProgress | Facts, None]:
        """Probe until nothing more could change the plan, or the time for it is over."""
        end = time.monotonic() + self._seconds
        for number in range(_MOST_ROUNDS):
            left = end - time.monotonic()
            setups = self._next_setups(facts, left)
            if number and (not setups or left <= 0):
                return
            done = Round()
            for _ in range(_MOST_PROBES):
                left = max(0.0, end - time.monotonic())
                request = self._request(facts, setups, left)
                async with aclosing(run_round(self._workers, request, left)) as run:
                    async for step in run:
                        if isinstance(step, WorkerProgress):
                            yield step
                        else:
                            done = step
                if not done.is_interrupted:
                    break
            known = self._unsupported
            facts = self._conclude(facts, done, cache)
            yield facts
            died = any(measure.died for measure in done.found.measures)
            learned_more = done.found.measures or self._unsupported != known
            if not (died or (done.is_whole and learned_more)):
                return
            if done.found.slow is not None:
                return

    def question(self, facts: Facts) -> Question | None:
        """Return the planner's question; None while data or model are not known well enough."""
        data, model, device = facts.data, facts.model, facts.device
        if data is None or data.train is None or data.train.lengths is None:
            return None
        if model.shape is None or not data.train.lengths.counted:
            return None
        return Question(
            spec=self._spec,
            shape=model.shape,
            quantized=bool(model.bits),
            model_path=model.path,
            lengths=data.train.lengths,
            samples=data.train.samples,
            text_only=data.train.format == "text",
            available=available(self._spec, facts),
            budget=budget_for(self._spec, facts, self.outside(facts)),
            device=device.kind if device else ("metal" if facts.host.is_mac else "cpu"),
            valid=data.valid.lengths if data.valid else None,
            largest_buffer=device.largest_buffer if device else 0,
            resources=device.resources if device else 0,
            effective_batch=self._effective_batch,
            splits_head=self._splits_head,
            unsupported=self._unsupported,
            pilot=self._pilot,
            pilot_failed=self._pilot_failed,
        )

    async def try_rates(self, facts: Facts) -> AsyncGenerator[WorkerProgress, None]:
        """Run the pilot, where one is wanted and its rate would be used."""
        question, chosen = self.question(facts), self._spec.settings
        wanted = self._spec.complete_settings.pilot_minutes and "learning_rate" not in chosen
        if not wanted or self._effective_batch or question is None or not self._workers.has_lease:
            return
        plan = choose_plan.plan(question, self.measures)
        if isinstance(plan, Finding):
            return
        yield WorkerProgress("pilot")
        request = pilot_request(self._spec, plan)
        try:
            async with asyncio.timeout(_PILOT_START_SECONDS + request.seconds):
                ended = await self._workers.run_worker(PILOT, request, lease=True)
            found = None if isinstance(ended.answer, SafetrainError) else ended.answer
        except TimeoutError:
            found = None
        self._pilot, self._pilot_failed = found, found is None

    def _is_measured(self, facts: Facts) -> bool:
        question = self.question(facts)
        plan = None if question is None else choose_plan.plan(question, self.measures)
        return isinstance(plan, Plan) and plan.measured_peak > 0

    def _next_setups(self, facts: Facts, seconds: float = math.inf) -> list[Setup]:
        """Return the setups that a probe should run next within `seconds`; empty where nothing more
        could change the plan.
        """
        question = self.question(facts)
        if question is None or self._loads_only:
            return []
        return next_probe(question, self.measures, seconds)

    def _request(self, facts: Facts, setups: Sequence[Setup], seconds: float) -> ProbeRequest:
        question = self.question(facts)
        if question is None:
            return ProbeRequest()
        return ProbeRequest(
            model=facts.model.path,
            setups=tuple(setups),
            trust_remote_code=self._spec.trust_remote_code,
            memory_limit=question.budget.limit,
            cache_limit=question.budget.cache,
            seconds=seconds,
        )

    def _conclude(self, facts: Facts, done: Round, cache: MeasurementCache) -> Facts:
        """Return the facts with a round's results, and keep those that hold for the next time as
        well.
        """
        question = self.question(facts)
        done.judge_end(facts.model.path, question.budget.limit if question else 0)
        found = done.found
        facts = self._take(facts, found)
        if found.measures or found.unsupported:
            cache.keep(found, self._spec.model, facts.model.shape)
        return facts

    def _take(self, facts: Facts, found: ProbeResult) -> Facts:
        self.measures += found.measures
        self._unsupported |= set(found.unsupported)
        if found.splits_head is not None:
            self._splits_head = found.splits_head
        slow = 0.0 if found.slow is None else max(found.slow, self._seconds)
        return dataclasses.replace(
            facts,
            device=found.device or facts.device,
            loaded=found.loaded or facts.loaded,
            too_slow=slow or facts.too_slow,
        )

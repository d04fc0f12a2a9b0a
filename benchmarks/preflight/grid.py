"""One cell of the grid, a model under a budget: preflight, training to the end, other settings."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.preflight.workers import Trained, Workers, environment, train
from safetrain_shared.codec import to_plain
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import Home
from safetrain_shared.settings import LOSS_CHUNK, TrainingSettings
from safetraind.planner import choose_plan
from safetraind.planner.degree import Degree
from safetraind.planner.option import Option, Question
from safetraind.planner.ways import same_work
from safetraind.preflight.preflight_run import PreflightRun

_OTHERS = 3
# What an estimate has at up to so many times the room may fit, and is run too.
_MAY_FIT = 1.3
_PERHAPS = 2
# What is predicted to take so many times as long as the recommended is not run. Predicted times
# were up to a tenth off.
_MUCH_SLOWER = 1.2
_ROUNDS = 3
_SLOWER = 1.1


@dataclass(frozen=True, slots=True)
class Cell:
    """What came out. `plan` is None where preflight refused: then `least` is the measured peak of
    the leanest setup, and `room` what it could have had. `speed_share` is the time that an epoch
    takes with the best setting by that with the recommended one, 0.0 where they were not compared,
    and `fastest` tells the best. `before`: to which degree the peak was known before it was
    measured: estimated or extrapolated.
    """

    model: str
    budget: int
    plan: Plan | None
    trained: Trained | None
    speed_share: float = 0.0
    least: int = 0
    room: int = 0
    before: str = ""
    fastest: str = ""

    @property
    def predicted_error(self) -> float:
        """Predicted before measuring, against the peak of the training; 0.03 is 3 % over."""
        assert self.plan is not None and self.trained is not None
        return self.plan.predicted_peak / self.trained.peak - 1

    @property
    def measured_error(self) -> float:
        """The same after measuring."""
        assert self.plan is not None and self.trained is not None
        return self.plan.measured_peak / self.trained.peak - 1

    @property
    def refused_rightly(self) -> bool:
        """It would not have fitted, measured and not predicted."""
        return self.least > self.room


def run(name: str, spec: JobSpec, root: Path, *, speeds: bool) -> Cell:
    """Preflight and training of `spec`; with `speeds` its setting against the others that fit."""
    preflight_run = preflight(spec, root)
    if preflight_run.plan is None:
        return _refused(name, spec, preflight_run)
    trained = train(spec, preflight_run.plan, root)
    share, fastest = _speed_share(preflight_run, preflight_run.plan) if speeds else (0.0, "")
    before = _known_before(preflight_run, preflight_run.plan)
    return Cell(
        name,
        spec.memory_budget,
        preflight_run.plan,
        trained,
        share,
        before=before,
        fastest=fastest,
    )


def _known_before(preflight_run: PreflightRun, plan: Plan) -> str:
    """To which degree the plan's peak was known before it was measured itself."""
    question = preflight_run.question
    assert question is not None
    options = choose_plan.options(question, preflight_run.measures)
    own = next(o for o in options if _same(o.settings, plan.settings))
    others = [m for m in preflight_run.measures if m.step != own.step]
    _, degree = choose_plan.judge(question, others).peak(own.settings, own.step)
    return degree.word


def preflight(spec: JobSpec, root: Path) -> PreflightRun:
    """A whole preflight, with what earlier ones learned."""
    preflight_run = PreflightRun(spec, Workers(root), Home(root / "home"), Path(spec.model))

    async def go() -> None:
        async for _ in preflight_run.run():
            pass

    asyncio.run(go())
    return preflight_run


def extremes(spec: JobSpec, root: Path) -> tuple[int, PreflightRun]:
    """The peak of the leanest setup in bytes, run, and the preflight with all the memory."""
    ample = preflight(spec, root)
    assert ample.question and ample.plan, [f.code for f in ample.findings if f.blocks]
    return peak_of(spec.model, choose_plan.smallest(ample.question, ample.measures)), ample


def _refused(name: str, spec: JobSpec, preflight_run: PreflightRun) -> Cell:
    """Was it right? The leanest setup is run, with all the memory that there is."""
    question = preflight_run.question
    assert question is not None, [f.code for f in preflight_run.findings if f.blocks]
    least = choose_plan.smallest(question, preflight_run.measures)
    peak = peak_of(spec.model, least)
    room = question.budget.room(Degree.MEASURED)
    return Cell(name, spec.memory_budget, None, None, least=peak, room=room)


def peak_of(model: str, option: Option) -> int:
    """The peak of a real step of one option, in bytes, in a process of its own."""
    request = {"model": model, "settings": to_plain(option.settings), "step": to_plain(option.step)}
    return int(_tried(request))


def said(settings: TrainingSettings) -> str:
    """What a way to train is known by: micro-batch × accumulation, and what saves memory or
    takes it.
    """
    lean = " recomputed" * settings.gradient_checkpointing + " chunked" * bool(settings.loss_chunk)
    lean += " dequantized" * settings.dequantize
    return f"{settings.batch_size}×{settings.gradient_accumulation}{lean}"


def _speed_share(preflight_run: PreflightRun, plan: Plan) -> tuple[float, str]:
    """The recommended setting against the fastest by estimate of each micro-batch that fits,
    against itself with the loss whole or in chunks, where that fits, and against the fastest that
    may fit although the estimate has no room for them: the time that an epoch of the data takes.
    Also tells the best. Only what fitted in these runs counts. What is predicted to be a fifth
    slower is left out.
    """
    question = preflight_run.question
    assert question is not None
    options = choose_plan.options(question, preflight_run.measures)
    own = next(o for o in options if _same(o.settings, plan.settings))
    options = [o for o in options if o is own or o.seconds <= _MUCH_SLOWER * own.seconds]
    fitting = [o for o in options if choose_plan.fits(question, o) and o is not own]
    others = {o.settings.batch_size: o for o in reversed(fitting)}
    chunk = 0 if own.settings.loss_chunk else LOSS_CHUNK
    settings = dataclasses.replace(own.settings, loss_chunk=chunk)
    other_loss = [o for o in fitting if _same(o.settings, settings)]
    compared = [own, *other_loss, *list(others.values())[:_OTHERS], *_perhaps(question, options)]
    setups = list({id(o): o for o in compared}.values())
    found = _epochs(
        [
            {
                "model": plan.model_path,
                "train": preflight_run.spec.train,
                "bucket": plan.length_bucket,
                "settings": to_plain(option.settings),
                "limit": option.limit,
            }
            for option in setups
        ]
    )
    room = question.budget.room(Degree.MEASURED)
    inside = [n for n, (_, peak) in enumerate(found) if not n or peak <= room]
    best = min(inside, key=lambda n: found[n])
    return found[best][0] / found[0][0], said(setups[best].settings)


def _epochs(requests: list[dict[str, Any]]) -> list[tuple[float, int]]:
    """The least seconds of an epoch, and the bytes at its peak, of each, run in turn and several
    times over, each time in a process of its own. What was a tenth slower than the fastest is not
    run again, but for the first.
    """
    found = [_epoch(request) for request in requests]
    for _ in range(1, _ROUNDS):
        least = min(seconds for seconds, _ in found)
        near = [n for n, (seconds, _) in enumerate(found) if not n or seconds <= _SLOWER * least]
        if len(near) < 2:
            break
        for n in near:
            seconds, peak = _epoch(requests[n])
            found[n] = min(found[n][0], seconds), max(found[n][1], peak)
    return found


def _epoch(request: dict[str, Any]) -> tuple[float, int]:
    seconds, peak = _tried(request)
    return seconds, peak


def _perhaps(question: Question, options: list[Option]) -> list[Option]:
    """The fastest options that were not measured and that no estimate has far too large."""
    return [
        o
        for o in options
        if o.degree is not Degree.MEASURED
        and not choose_plan.fits(question, o)
        and o.peak <= _MAY_FIT * question.budget.room(o.degree)
    ][:_PERHAPS]


def _tried(request: dict[str, Any]) -> Any:
    command = [sys.executable, "-m", "benchmarks.preflight.speeds", json.dumps(request)]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _same(one: TrainingSettings, other: TrainingSettings) -> bool:
    shape = one.batch_size, one.max_seq_length
    return same_work(one, other) and shape == (other.batch_size, other.max_seq_length)

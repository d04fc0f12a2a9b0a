"""One cell of the grid, a model under a budget: preflight, training to the end, other settings."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.preflight.workers import Trained, Workers, environment, train
from safetrain_shared.jobs import JobSpec, Plan, to_dict
from safetrain_shared.paths import Home
from safetraind.preflight import planner
from safetraind.preflight.course import Course
from safetraind.preflight.shapes import padded_tokens

_MOST_SETUPS = 4
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Cell:
    """What came out. `plan` is None where preflight refused; `speed_share` is the recommended
    setting's tokens a second by those of the best, 0.0 where they were not compared.
    """

    model: str
    budget: int
    plan: Plan | None
    trained: Trained | None
    speed_share: float = 0.0

    @property
    def predicted_error(self) -> float:
        """Predicted before probing, against the peak of the training; 0.03 is 3 % over."""
        assert self.plan is not None and self.trained is not None
        return self.plan.predicted_peak / self.trained.peak - 1

    @property
    def measured_error(self) -> float:
        """The same after probing."""
        assert self.plan is not None and self.trained is not None
        return self.plan.measured_peak / self.trained.peak - 1


def run(name: str, spec: JobSpec, root: Path, *, speeds: bool) -> Cell:
    """Preflight and training of `spec`; with `speeds` its setting against the others that fit."""
    course = preflight(spec, root)
    if course.plan is None:
        return Cell(name, spec.memory_budget, None, None)
    trained = train(spec, course.plan, root)
    share = _speed_share(course) if speeds else 0.0
    return Cell(name, spec.memory_budget, course.plan, trained, share)


def preflight(spec: JobSpec, root: Path) -> Course:
    """A whole preflight, with what earlier ones learned."""
    course = Course(spec, Workers(root), Home(root / "home"), Path(spec.model))

    async def go() -> None:
        async for _ in course.run():
            pass

    asyncio.run(go())
    return course


def _speed_share(course: Course) -> float:
    """The recommended setting against the fastest by estimate of each micro-batch that fits: the
    time that an epoch takes, padding included.
    """
    question, plan = course.question, course.plan
    if question is None or plan is None:
        return 0.0
    options = planner.options(question, course.measures)
    fitting = [o for o in options if o.peak <= question.budget.room(measured=False)]
    chosen = [o for o in options if o.settings.batch_size == plan.settings.batch_size]
    own = next(o for o in chosen if _same(o.settings, plan.settings))
    others = {o.settings.batch_size: o for o in reversed(fitting) if o is not own}
    setups = [own, *list(others.values())[: _MOST_SETUPS - 1]]
    request = {
        "model": plan.model_path,
        "rounds": _ROUNDS,
        "setups": [
            {
                "settings": to_dict(o.settings),
                "rows": o.step.rows,
                "width": o.step.width,
                "learned": o.step.learned,
            }
            for o in setups
        ],
    }
    command = [sys.executable, "-m", "benchmarks.preflight.speeds", json.dumps(request)]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, check=True)
    found: list[float] = json.loads(done.stdout)
    lengths = question.lengths
    seconds = [
        padded_tokens(lengths, o.settings.max_seq_length, o.step.rows)[0] / speed
        for o, speed in zip(setups, found, strict=True)
    ]
    return min(seconds) / seconds[0]


def _same(one: object, other: object) -> bool:
    names = ("gradient_checkpointing", "loss_chunk", "dequantize")
    return all(getattr(one, name) == getattr(other, name) for name in names)

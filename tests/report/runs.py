"""Events of made-up runs, as a daemon sends them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from safetrain_shared import events
from safetrain_shared.events import Body, Event
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobState, Plan
from safetrain_shared.settings import TrainingSettings

STARTED = 1_760_000_000.0  # 2025-10-09
GB = 2**30


def plan(steps: int, **settings: int | float | str) -> Plan:
    return Plan(
        settings=TrainingSettings().with_overrides(settings),
        model_path="/models/mistral-7b",
        total_steps=steps,
        memory_budget=6 * GB,
        predicted_peak=int(5.1 * GB),
        measured_peak=int(5.0 * GB),
        tokens_per_second=180.0,
        expected_seconds=5400.0,
        samples=848,
        samples_cut=12,
        samples_left_out=3,
        reasons=(Finding("setting.unknown", args={"name": "<b>reason</b>", "known": "a & b"}),),
    )


def numbered(bodies: Iterator[tuple[int, Body]], every: float = 7.0) -> list[Event]:
    """(attempt, body) pairs as events, `every` seconds apart."""
    kinds = events.KIND_OF
    return [
        Event(seq, attempt, STARTED + every * seq, kinds[type(body)], body)
        for seq, (attempt, body) in enumerate(bodies, 1)
    ]


def step(at: int, total: int, per_epoch: int, *, loss: float | None = None) -> events.StepDone:
    noise = random.Random(at).gauss(0, 0.09)
    warm = min(1.0, at / 50)
    rate = 2e-4 * warm * 0.5 * (1 + math.cos(math.pi * at / total))
    return events.StepDone(
        step=at,
        epoch=(at - 1) // per_epoch,
        step_in_epoch=(at - 1) % per_epoch + 1,
        total_steps=total,
        loss=0.9 + 1.7 * math.exp(-3 * at / total) + noise if loss is None else loss,
        learning_rate=rate,
        grad_norm=0.8,
        tokens=at * 800,
        tokens_per_second=180 + 10 * noise,
        peak_memory=int(GB * (4.2 + 0.7 * min(1, at / 200))),
        footprint=int(GB * (4.9 + 0.3 * math.sin(at / 40) + 0.5 * min(1, at / 300))),
        eta_seconds=float(total - at),
    )


def evaluated(at: int, total: int, per_epoch: int, *, best: bool = True) -> events.Evaluated:
    loss = 1.05 + 1.5 * math.exp(-3.5 * at / total) + 0.25 * max(0, at / total - 0.6) ** 2
    return events.Evaluated(at, (at - 1) // per_epoch, (at - 1) % per_epoch + 1, loss, 95, best)


def saved(at: int, per_epoch: int) -> events.CheckpointSaved:
    epoch, inside = (at - 1) // per_epoch, (at - 1) % per_epoch + 1
    path = f"/out/checkpoint_epoch_{epoch}_step_{inside}"
    return events.CheckpointSaved(at, epoch, inside, path, 21 << 20, 0.4)


def eventful(total: int = 636, per_epoch: int = 212) -> list[Event]:
    """A run that runs out of memory at step 330, backs off, goes on from 300 and succeeds."""
    return numbered(_eventful(total, per_epoch))


def _eventful(total: int, per_epoch: int) -> Iterator[tuple[int, Body]]:
    first = plan(total, batch_size=2, gradient_accumulation=2, learning_rate=2e-4, seed=7)
    lower = plan(total, batch_size=1, gradient_accumulation=4, learning_rate=2e-4, seed=7)
    yield 0, events.StateChanged(JobState.QUEUED)
    yield 0, events.StateChanged(JobState.CHECKING)
    yield 0, events.Planned(first)
    yield 1, events.StateChanged(JobState.RUNNING)
    yield 1, events.PhaseChanged("training")
    for at in range(10, 331, 10):
        yield from ((1, body) for body in _at(at, total, per_epoch))
    yield 1, events.StateChanged(JobState.INTERRUPTED, Finding("job.out_of_memory", Status.FAILED))
    yield 1, events.Planned(lower)
    changed = {"batch_size": 1, "gradient_accumulation": 4}
    yield 1, events.Notice(Finding("backoff.micro_batch", Status.WARNING, args=changed))
    yield 2, events.StateChanged(JobState.RUNNING)
    damaged = {"checkpoint": "checkpoint_epoch_1_step_108", "reason": "SHA-256"}
    notice = Finding("train.checkpoint_damaged", Status.WARNING, args=damaged)
    yield 2, events.Notice(notice)
    yield 2, events.Damaged(1200, 1330)
    for at in range(310, total + 1, 10):
        yield from ((2, body) for body in _at(at, total, per_epoch))
    yield 2, events.Outcome("succeeded")
    yield 2, events.StateChanged(JobState.SUCCEEDED)


def _at(at: int, total: int, per_epoch: int) -> Iterator[Body]:
    yield step(at, total, per_epoch)
    if at % 50 == 0:
        yield evaluated(at, total, per_epoch, best=at <= 500)
    if at % 100 == 0:
        yield saved(at, per_epoch)


def long(count: int) -> list[Event]:
    """A run of `count` logged steps, with one spike of the loss, 7 steps behind its middle."""
    per_epoch = max(1, count // 3)

    def bodies() -> Iterator[tuple[int, Body]]:
        yield 0, events.Planned(plan(count))
        for at in range(1, count + 1):
            yield 1, step(at, count, per_epoch, loss=40.0 if at == count // 2 + 7 else None)

    return numbered(bodies(), every=0.1)

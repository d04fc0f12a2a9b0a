"""A real safetraind in a home of its own, with a job in progress and one that has a long story."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from safetrain_shared import events
from safetrain_shared.jobs import JobSpec, JobState, Plan
from safetrain_shared.paths import RunFolder
from safetrain_shared.settings import SettingValue, TrainingSettings
from safetraind.storage.event_file import EventWriter
from tests.harness import DaemonProcess, wait_for
from tests.tiny import make_chat_data, make_tiny_model

_EVALUATE_EVERY = 500  # steps
_GB = 1 << 30
_QUICK: dict[str, SettingValue] = {
    "batch_size": 2,
    "gradient_accumulation": 1,
    "max_seq_length": 64,
    "lora_layers": 2,
}


@contextmanager
def running(folder: Path) -> Iterator[DaemonProcess]:
    """A daemon whose home and model are in `folder`; it and all it started end with the block."""
    make_tiny_model(folder / "model", layers=2)
    make_chat_data(folder, train=24, valid=6)
    daemon = DaemonProcess(folder / "home")
    try:
        yield daemon.start()
    finally:
        daemon.end()


def told(daemon: DaemonProcess, folder: Path, count: int) -> int:
    """A job that succeeded, its event file then replaced by one of `count` events. Its id."""
    job = _submit(daemon, folder, "told", num_epochs=1)
    daemon.wait_for_state(job, JobState.SUCCEEDED)
    daemon.terminate()
    _tell(daemon.home.run(job), count)
    daemon.start()
    return job


def training(daemon: DaemonProcess, folder: Path) -> int:
    """A job that has begun to train and will not end while the benchmark lasts. Its id."""
    job = _submit(daemon, folder, "training", num_epochs=1000, log_steps=10, eval_steps=100)
    wait_for(lambda: daemon.job(job).step > 100, 120, "the training has begun")
    return job


def cpu_seconds(daemon: DaemonProcess) -> float:
    """What the daemon itself has used until now, its children left out."""
    assert daemon.process is not None
    used = psutil.Process(daemon.process.pid).cpu_times()
    return used.user + used.system


def _submit(daemon: DaemonProcess, folder: Path, name: str, **settings: SettingValue) -> int:
    spec = JobSpec(
        model=str(folder / "model"),
        train=str(folder / "train.jsonl"),
        valid=str(folder / "valid.jsonl"),
        output=str(folder / name),
        name=name,
        settings=_QUICK | settings,
    )
    return int(daemon.submit(spec).job.id)


def _tell(run: RunFolder, count: int) -> None:
    """A long training's events, as its daemon and worker would have written them."""
    run.events.unlink()
    writer = EventWriter(run.events, attempt=1)
    for body in _story(count - 6):
        writer.append(body)
    assert writer.last_seq == count
    writer.close()


def _story(middle: int) -> Iterator[events.Body]:
    """`middle` steps and evaluations between three events before and three after."""
    yield events.StateChanged(JobState.QUEUED)
    yield events.StateChanged(JobState.RUNNING)
    yield events.Planned(Plan(TrainingSettings(), "model", middle, memory_budget=6 * _GB))
    for at in range(1, middle + 1):
        yield _evaluation(at, middle) if at % _EVALUATE_EVERY == 0 else _step(at, middle)
    yield events.CheckpointSaved(middle, 0, middle, "checkpoint", 5 << 20, 0.2)
    yield events.Outcome("succeeded")
    yield events.StateChanged(JobState.SUCCEEDED)


def _step(at: int, total: int) -> events.StepDone:
    return events.StepDone(
        step=at,
        epoch=0,
        step_in_epoch=at,
        total_steps=total,
        loss=_loss(at, total) + 0.1 * math.sin(7 * at),
        learning_rate=2e-4 * (1 - at / total),
        grad_norm=0.8,
        tokens=800 * at,
        tokens_per_second=180 + math.sin(at),
        peak_memory=4 * _GB + 1000 * at,
        footprint=5 * _GB + 1000 * at,
        eta_seconds=float(total - at),
    )


def _evaluation(at: int, total: int) -> events.Evaluated:
    return events.Evaluated(at, 0, at, _loss(at, total), samples=95, best=True)


def _loss(at: int, total: int) -> float:
    return 0.9 + 1.7 * math.exp(-3 * at / total)

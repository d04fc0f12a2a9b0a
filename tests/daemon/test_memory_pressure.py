"""Another program takes the memory under a real training: it holds, or leaves and comes back."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.events import Notice, PhaseChanged, StateChanged, StepDone
from safetrain_shared.jobs import JobSpec, JobState
from tests.daemon import fakes
from tests.daemon.memory_group import MemoryGroup, can_run_in, memory_group
from tests.harness import DaemonProcess, wait_for
from tests.tiny import make_chat_data, make_tiny_model

LIMIT = 2 << 30
LEFT = 0.035  # the share of it that the other program leaves: short, but not critical
STEPS = 240


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    with memory_group() as found:
        if found is None or not can_run_in(found):
            pytest.skip("no memory controller can be written here")
        yield found


@pytest.fixture
def daemon(group: MemoryGroup, home: Path) -> Iterator[DaemonProcess]:
    command = group.wrap((sys.executable, str(Path(fakes.__file__)), "real"))
    process = DaemonProcess(home, command)
    try:
        yield process.start()
    finally:
        process.end()


def spec_of(folder: Path, hold_seconds: int) -> JobSpec:
    model = make_tiny_model(folder / "model", layers=2)
    train, valid = make_chat_data(folder / "data", 8, 2)
    settings: dict[str, Any] = {
        "batch_size": 2,
        "num_epochs": STEPS // 4,
        "eval_steps": 10_000,
        "eval_samples": 1,
        "save_steps": 10_000,
        "log_steps": 20,
        "keep_checkpoints": 1,
        "calm_seconds": 1,
        "hold_seconds": hold_seconds,
    }
    return JobSpec(str(model), str(train), str(valid), str(folder / "out"), settings=settings)


@contextlib.contextmanager
def hungry(group: MemoryGroup) -> Iterator[None]:
    """Another program of the group that takes all but `LEFT` of what it may have."""
    group.allow(LIMIT)
    size = int((1 - LEFT) * LIMIT) - group.used_for_good()
    take = f"held = b'x' * {size}; print('full', flush=True); input()"
    command = group.wrap((sys.executable, "-I", "-S", "-c", take))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"full\n"
        try:
            yield
        finally:
            process.kill()


def told(daemon: DaemonProcess, job: int) -> list[str]:
    """Phases, notices and causes, in order."""
    found = []
    for event in daemon.watch(job):
        match event.body:
            case PhaseChanged(phase):
                found.append(phase)
            case Notice(finding):
                found.append(finding.code)
            case StateChanged(_, cause) if cause is not None:
                found.append(cause.code)
    return found


def test_a_training_holds_while_another_program_has_the_memory_and_then_goes_on(
    group: MemoryGroup, daemon: DaemonProcess, tmp_path: Path
) -> None:
    job = daemon.submit(spec_of(tmp_path, hold_seconds=600)).job.id
    wait_for(lambda: daemon.job(job).step > 1, 60)
    with hungry(group):
        wait_for(lambda: "train.holding" in told(daemon, job), 60)
        assert daemon.state(job) is JobState.RUNNING
        assert re.search("holding", daemon.job(job).phase)
        held = daemon.job(job).step
    wait_for(lambda: daemon.job(job).step > held, 60)
    assert "train.memory_short" not in told(daemon, job)


def test_a_training_leaves_the_memory_that_stays_short_and_comes_back_by_itself(
    group: MemoryGroup, daemon: DaemonProcess, tmp_path: Path
) -> None:
    job = daemon.submit(spec_of(tmp_path, hold_seconds=0)).job.id
    wait_for(lambda: daemon.job(job).step > 1, 60)
    with hungry(group):
        wait_for(lambda: daemon.state(job) is JobState.INTERRUPTED, 60)
        assert not daemon.workers()
    daemon.wait_for_state(job, JobState.SUCCEEDED)
    assert "train.memory_short" in told(daemon, job)
    steps = [e.body.step for e in daemon.watch(job) if isinstance(e.body, StepDone)]
    assert steps == sorted(set(steps)) and steps[-1] == STEPS

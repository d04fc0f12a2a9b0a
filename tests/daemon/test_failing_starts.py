"""Starts that end without a step: three of them, then the job has failed with its cause."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from safetrain_shared.events import StateChanged
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import RunFolder
from tests.daemon.conftest import PLAY, MakeSpec
from tests.daemon.fakes import let_go
from tests.harness import DaemonProcess, wait_for


def folder_at(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "inside").touch()


IN_THE_WAY: dict[str, Callable[[RunFolder], Path]] = {
    "run.lock": lambda run: run.lock,
    "exit.json.new": lambda run: Path(f"{run.exit}.new"),
    "exit.json": lambda run: run.exit,
    "intent": lambda run: run.intent,
    "launch.json": lambda run: run.launch,
    "plan.json": lambda run: run.plan,
    "worker.log": lambda run: run.log,
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_a_folder_in_the_place_of_a_file_is_three_starts_at_the_most(
    name: str, playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    playing.start()
    first = playing.submit(make_spec("one", name="check=0.5", num_epochs=1)).job.id
    playing.wait_for_state(first, JobState.CHECKING)
    folder_at(IN_THE_WAY[name](playing.home.run(first)))
    second = playing.submit(make_spec("two", name="pace=0", num_epochs=1)).job.id
    playing.wait_for_state(first, JobState.FAILED, JobState.SUCCEEDED, seconds=60)
    assert playing.wait_for_state(second) is JobState.SUCCEEDED
    job = playing.job(first)
    assert job.attempt <= 3
    if playing.state(first) is JobState.FAILED:
        assert job.cause.code == "job.gave_up" and job.cause.text


def fifo_at(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def test_a_fifo_put_in_the_place_of_a_living_runs_file_blocks_nobody(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    files = dict(IN_THE_WAY)
    files |= {
        "events.log": lambda run: run.events,
        "told": lambda run: run.delivered,
        "intent.new": lambda run: Path(f"{run.intent}.new"),
    }
    playing.start()
    for name, path_of in files.items():
        for kind, moment in (("check=0.1", "checking"), ("pace=0.01,hold=2", "training")):
            spec = make_spec(f"{moment} {name}", name=kind, num_epochs=1)
            job = playing.submit(spec).job.id
            if moment == "checking":
                playing.wait_for_state(job, JobState.CHECKING)
            else:
                wait_for(lambda job=job: playing.job(job).step == 2)
            fifo_at(path_of(playing.home.run(job)))
            let_go(spec.output)
            state = playing.wait_for_state(job, seconds=60)
            assert state is JobState.SUCCEEDED, (name, moment, playing.job(job).cause.text)
            assert playing.job(job).attempt <= 3


@pytest.fixture
def movable(home: Path, tmp_path: Path) -> Iterator[DaemonProcess]:
    """A daemon whose workers are run by `tmp_path/python`, which can be taken away."""
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    process = DaemonProcess(home, PLAY, {"PLAY_PYTHON": str(python)})
    try:
        yield process.start()
    finally:
        process.end()


def test_a_worker_that_cannot_be_run_any_more_is_three_attempts(
    movable: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    (tmp_path / "python").unlink()
    job = movable.submit(make_spec(num_epochs=1)).job.id
    movable.wait_for_state(job, JobState.FAILED)
    assert movable.job(job).cause.code == "job.gave_up"
    assert movable.job(job).attempt == 3
    states = [e.body.state for e in movable.watch(job) if isinstance(e.body, StateChanged)]
    assert states.count(JobState.FAILED) == 1

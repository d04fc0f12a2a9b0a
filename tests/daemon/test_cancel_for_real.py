"""Cancel against the real worker: while it loads the model, and in the middle of a checkpoint."""

from __future__ import annotations

import functools
import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.events import CheckpointSaved, Outcome, StateChanged, StepDone
from safetrain_shared.jobs import FINAL, JobSpec, JobState
from safetraind.storage.manifest import damaged_files
from tests.daemon.conftest import PLAY
from tests.harness import DaemonProcess, wait_for
from tests.tiny import make_chat_data, make_tiny_model

SETTINGS = {
    "batch_size": 2,
    "max_seq_length": 64,
    "num_epochs": 50,
    "save_steps": 1,
    "eval_steps": 1000,
    "lora_layers": 2,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_model(folder / "model")
    make_chat_data(folder, train=8, valid=2)
    return folder


@pytest.fixture
def real(home: Path) -> Iterator[DaemonProcess]:
    """A daemon whose checks alone are play."""
    daemon = DaemonProcess(home, (*PLAY, "real"))
    try:
        yield daemon.start()
    finally:
        daemon.end()


def caught(
    daemon: DaemonProcess, meets: Callable[[], bool], is_over: Callable[[], bool]
) -> psutil.Process | None:
    """The training's worker, stopped in a moment that `meets`; None once no other can come."""
    (worker,) = wait_for(daemon.workers)
    while not is_over():
        if meets():
            worker.send_signal(signal.SIGSTOP)
            wait_for(lambda: worker.status() == psutil.STATUS_STOPPED)
            if meets():
                return worker
            worker.send_signal(signal.SIGCONT)
    return None


def cancel(daemon: DaemonProcess, job_id: int, worker: psutil.Process) -> None:
    """Cancels, twice, while the worker stands still, and lets it go on."""
    for _ in range(2):
        daemon.jobs.Cancel(jobs_pb2.JobRequest(id=job_id))
    assert daemon.home.run(job_id).intent.read_text() == "cancel"
    worker.send_signal(signal.SIGCONT)
    daemon.wait_for_state(job_id, JobState.CANCELLED)
    bodies = [event.body for event in daemon.watch(job_id)]
    assert [body.outcome for body in bodies if isinstance(body, Outcome)] == ["cancelled"]
    states = [body.state for body in bodies if isinstance(body, StateChanged)]
    assert states.count(JobState.CANCELLED) == 1
    wait_for(lambda: not daemon.workers())


def spec_of(tiny: Path, output: Path) -> JobSpec:
    files = [str(tiny / name) for name in ("model", "train.jsonl", "valid.jsonl")]
    return JobSpec(*files, str(output), settings=SETTINGS)


def test_cancel_while_the_model_is_loaded(real: DaemonProcess, tiny: Path, tmp_path: Path) -> None:
    """Loading is short: a job whose loading was missed gives way to another."""
    for number in itertools.count():
        job = real.submit(spec_of(tiny, tmp_path / f"out{number}")).job.id
        events = real.home.run(job).events
        tokenizes = functools.partial(said, events, b'"tokenizing"')

        def loads(events: Path = events, tokenizes: Callable[[], bool] = tokenizes) -> bool:
            return said(events, b'"loading"') and not tokenizes()

        if worker := caught(real, loads, tokenizes):
            break
        real.jobs.Cancel(jobs_pb2.JobRequest(id=job))
        real.wait_for_state(job, JobState.CANCELLED)
    cancel(real, job, worker)
    assert not [e for e in real.watch(job) if isinstance(e.body, StepDone)]


def said(events: Path, word: bytes) -> bool:
    return word in events.read_bytes()


def test_cancel_in_the_middle_of_a_checkpoint_leaves_a_whole_one(
    real: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = real.submit(spec_of(tiny, output)).job.id

    def saves() -> bool:
        return any(output.glob(".checkpoint_*.partial"))

    worker = caught(real, saves, lambda: real.state(job) in FINAL)
    assert worker is not None
    before = [e for e in real.watch(job) if isinstance(e.body, CheckpointSaved)]
    cancel(real, job, worker)
    assert not saves()
    saved = [e.body for e in real.watch(job) if isinstance(e.body, CheckpointSaved)]
    assert len(saved) > len(before), "the one it stood in, whole"
    assert damaged_files(Path(saved[-1].path)) == []
    real.jobs.Retry(jobs_pb2.JobRequest(id=job))
    wait_for(lambda: real.job(job).step > saved[-1].step, 60, "it goes on from there")
    real.jobs.Cancel(jobs_pb2.JobRequest(id=job))
    real.wait_for_state(job, JobState.CANCELLED)

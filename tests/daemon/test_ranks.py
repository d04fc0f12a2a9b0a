"""A training of several ranks, killed, stopped and hung: all end, and the result is the same."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil
import pytest

from safetrain_shared.events import StateChanged, StepDone
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec, JobState
from safetraind.processes.locks import is_held
from safetraind.processes.rank_watch import CONFIRM_SECONDS
from tests import links
from tests.daemon import fakes
from tests.daemon.unhurried_worker import PATIENCE_SECONDS
from tests.harness import DaemonProcess, wait_for
from tests.tiny import make_chat_data, make_tiny_model

SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "gradient_accumulation": 3,
    "max_seq_length": 64,
    "num_epochs": 3,
    "log_steps": 1,
    "save_steps": 2,
    "lora_layers": 2,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "seed": 7,
}
# Until a hang is found; the rest is a busy machine.
FOUND_SECONDS = PATIENCE_SECONDS + CONFIRM_SECONDS + 6
# Adapters of several ranks and of one process, relative to their length: sums are rounded in
# another order.
ADAPTERS_AGREE = 1e-6
WORKER = str(Path(fakes.__file__).with_name("unhurried_worker.py"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One with real workers of `unhurried_worker`, whose checks are play."""
    home = tmp_path_factory.mktemp("ranks") / "home"
    process = DaemonProcess(home, (sys.executable, fakes.__file__, "real", WORKER))
    try:
        yield process.start()
    finally:
        process.end()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_model(folder / "model", layers=2, hidden=32)
    make_chat_data(folder, train=16, valid=2)
    return folder


def spec_of(tiny: Path, output: Path, **settings: Any) -> JobSpec:
    files = {name: str(tiny / f"{name}.jsonl") for name in ("train", "valid")}
    return JobSpec(
        str(tiny / "model"), **files, output=str(output), settings={**SETTINGS, **settings}
    )


def adapter(output: Path) -> bytes:
    return (output / "adapters" / "adapters.safetensors").read_bytes()


def distance(one: Path, other: Path) -> float:
    """How far two outputs' adapters are from each other, relative to the length of the second."""
    first, second = (
        mx.load(str(output / "adapters" / "adapters.safetensors")) for output in (one, other)
    )
    assert isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys()
    apart = sum(((first[name] - second[name]) ** 2).sum().item() for name in second)
    return float((apart / sum((value**2).sum().item() for value in second.values())) ** 0.5)


def rank(daemon: DaemonProcess, job: int, number: int) -> psutil.Process:
    """The living worker of a rank."""
    folder = str(daemon.home.run(job).rank(number).root)
    return wait_for(
        lambda: next((p for p in daemon.workers() if p.cmdline()[-1] == folder), None),
        what=f"rank {number}",
    )


def steps_on(daemon: DaemonProcess, job: int, more: int = 3) -> None:
    """Wait until the job has done some more steps."""
    last = daemon.job(job).last_seq

    def done() -> bool:
        events = daemon.watch(job, last)
        return sum(isinstance(event.body, StepDone) for event in events) >= more

    wait_for(done, what=f"job {job} goes on")


def test_two_ranks_agree_with_one_process_and_equal_themselves_after_hangs_and_a_cut_link(
    daemon: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    """Windows of 6 samples and one of 4, in micro-batches of 2: the ranks have unequal shares of
    tokens, and unlike numbers of micro-batches.
    """
    alone = daemon.submit(spec_of(tiny, tmp_path / "alone")).job.id
    calm = daemon.submit(spec_of(tiny, tmp_path / "calm", ranks=2)).job.id
    wild = daemon.submit(spec_of(tiny, tmp_path / "wild", ranks=2)).job.id
    daemon.wait_for_state(calm, JobState.SUCCEEDED)
    steps_on(daemon, wild)
    shown = daemon.job(wild).ranks
    assert [one.number for one in shown] == [0, 1] and all(one.footprint for one in shown)
    rank(daemon, wild, 1).send_signal(signal.SIGSTOP)
    daemon.kill()
    daemon.start()
    wait_for(lambda: daemon.job(wild).attempt == 2, what="the stopped rank is found")
    steps_on(daemon, wild)
    assert links.silence(rank(daemon, wild, 1)) == 2, "one connection to each neighbour"
    wait_for(lambda: daemon.job(wild).attempt == 3, what="the silent link is found")
    steps_on(daemon, wild, 1)
    assert links.cut(rank(daemon, wild, 0)) == 2
    daemon.wait_for_state(wild, JobState.SUCCEEDED)

    assert adapter(tmp_path / "wild") == adapter(tmp_path / "calm")
    stopped, silent, cut = interruptions(daemon, wild)
    assert stopped.code in ("job.ranks_hung", "job.ranks_stuck")
    assert silent.code == "job.ranks_stuck" and float(silent.args["seconds"]) <= FOUND_SECONDS
    assert cut.code in ("job.rank_crashed", "job.rank_killed")
    wait_for(lambda: not daemon.workers() + daemon.keepers(), what="nothing is left behind")
    assert not is_held(daemon.home.run(wild).lock)
    assert not is_held(daemon.home.lease("cpu"))

    assert losses(daemon, calm) == pytest.approx(losses(daemon, alone))
    assert distance(tmp_path / "calm", tmp_path / "alone") <= ADAPTERS_AGREE
    assert not list(daemon.home.run(calm).rank(1).root.rglob("*.safetensors"))


def test_ranks_that_a_slow_link_makes_slower_than_one_are_refused(
    daemon: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    """The plan expects a step that takes less time than any sum over two processes."""
    spec = replace(spec_of(tiny, tmp_path / "slow", ranks=2), name="alone=1e-7")
    job = daemon.submit(spec).job.id
    daemon.wait_for_state(job, JobState.FAILED)
    cause = daemon.job(job).cause
    assert cause.code == "train.ranks_too_slow" and cause.blocks
    assert not [e for e in daemon.watch(job) if isinstance(e.body, StepDone)]
    assert not (tmp_path / "slow" / "adapters").exists()


def interruptions(daemon: DaemonProcess, job: int) -> list[Finding]:
    """Why it was interrupted, each time."""
    changes = [e.body for e in daemon.watch(job) if isinstance(e.body, StateChanged)]
    return [body.cause for body in changes if body.state is JobState.INTERRUPTED and body.cause]


def losses(daemon: DaemonProcess, job: int) -> list[float]:
    """Tokens so far, loss and gradient norm of each step, one after the other."""
    bodies = [event.body for event in daemon.watch(job)]
    return [
        part
        for body in bodies
        if isinstance(body, StepDone)
        for part in (body.tokens, body.loss, body.grad_norm)
    ]

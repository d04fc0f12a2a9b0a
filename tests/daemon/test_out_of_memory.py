"""The kernel kills a real training for memory; it goes on by itself with smaller steps."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from safetrain_shared.events import Notice, StateChanged, StepDone
from safetrain_shared.jobs import JobSpec, JobState
from tests.daemon import fakes
from tests.daemon.memory_group import MemoryGroup, can_run_in, memory_group
from tests.harness import DaemonProcess
from tests.tiny import make_tiny_model

# Daemon, keeper and worker together take more with steps of eight samples, and half with one.
LIMIT = 520 << 20
VOCABULARY = 16_384  # 32 MiB of logits a sample
RUNS = int(os.environ.get("SAFETRAIN_OOM_RUNS", "1"))  # `make soak`: 20
STEPS_AGREE = 1e-4  # relative: sums of gradients are rounded in another order


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    with memory_group() as found:
        if found is None or not can_run_in(found):
            pytest.skip("no memory controller can be written here")
        yield found


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of many words, and samples cut at the longest length: its logits make a step
    large, and computing it is short.
    """
    folder = tmp_path_factory.mktemp("heavy")
    make_tiny_model(folder / "model", layers=1, hidden=32, vocab=VOCABULARY)
    draw = random.Random(3)
    words = ["o", "clube", "de", "Faro", "joga", "no", "Algarve", "Leões", "branco", "preto"]
    for name, count in (("train", 16), ("valid", 1)):
        lines = [
            {
                "messages": [
                    {"role": "user", "content": f"Pergunta {n}?"},
                    {"role": "assistant", "content": " ".join(draw.choices(words, k=400))},
                ]
            }
            for n in range(count)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def spec_of(heavy: Path, output: Path) -> JobSpec:
    settings: dict[str, Any] = {
        "batch_size": 8,
        "max_seq_length": 512,
        "num_epochs": 1,
        "log_steps": 1,
        "save_steps": 1,
        "eval_steps": 1000,
        "eval_samples": 1,
        "lora_layers": 1,
        "warmup_steps": 0,
        "learning_rate": 1e-3,
    }
    train, valid = str(heavy / "train.jsonl"), str(heavy / "valid.jsonl")
    return JobSpec(str(heavy / "model"), train, valid, str(output), settings=settings)


def losses(daemon: DaemonProcess, job_id: int) -> dict[int, float]:
    events = daemon.watch(job_id)
    return {e.body.step: e.body.loss for e in events if isinstance(e.body, StepDone)}


def test_trainings_killed_for_memory_finish_without_a_hand_and_end_alike(
    group: MemoryGroup, heavy: Path, home: Path, tmp_path: Path
) -> None:
    command = group.wrap((sys.executable, str(Path(fakes.__file__)), "real"))
    daemon = DaemonProcess(home, command)
    try:
        daemon.start()
        calm = daemon.submit(spec_of(heavy, tmp_path / "calm")).job.id
        daemon.wait_for_state(calm, JobState.SUCCEEDED, seconds=120)
        group.allow(LIMIT)
        for n in range(RUNS):
            kills = group.kills()
            job = daemon.submit(spec_of(heavy, tmp_path / f"tight{n}")).job.id
            kills += _deaths_of_the_daemon_until_it_succeeds(daemon, job)
            assert group.kills() > kills, "the kernel killed the first attempt"
            _assert_each_kill_was_answered_by_a_rung(daemon, job, group.kills() - kills)
            assert losses(daemon, job) == pytest.approx(losses(daemon, calm), rel=STEPS_AGREE)
        assert daemon.process is not None
        assert daemon.process.poll() is None
    finally:
        daemon.end()


def _deaths_of_the_daemon_until_it_succeeds(daemon: DaemonProcess, job: int) -> int:
    """Start the daemon again where the kernel kills it too, as systemd does.

    The kernel may look for memory again before that of the worker, which it killed, is free.
    """
    for deaths in range(2):
        try:
            daemon.wait_for_state(job, JobState.SUCCEEDED, seconds=300)
            return deaths
        except grpc.RpcError:
            assert daemon.process is not None
            assert daemon.process.wait(60) == -signal.SIGKILL
            daemon.kill()  # its channel is closed, too
            daemon.start()
    raise AssertionError("the kernel killed the daemon twice")


def _assert_each_kill_was_answered_by_a_rung(daemon: DaemonProcess, job: int, kills: int) -> None:
    bodies = [event.body for event in daemon.watch(job)]
    causes = [b.cause.code for b in bodies if isinstance(b, StateChanged) and b.cause]
    assert causes == ["job.out_of_memory"] * kills
    notices = [b.finding for b in bodies if isinstance(b, Notice)]
    fallbacks = [notice.args for notice in notices if notice.code == "backoff.micro_batch"]
    assert [rung["batch_size"] for rung in fallbacks] == [4, 2, 1][:kills]
    assert all(rung["batch_size"] * rung["gradient_accumulation"] == 8 for rung in fallbacks)

"""Random kills of the workers that inspect, probe and export, with the real ones of each."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from safetrain_proto.v1 import exports_pb2, exports_pb2_grpc
from safetrain_shared.jobs import JobSpec, JobState
from tests.harness import DaemonProcess
from tests.soak.left_over import left_over
from tests.tiny import make_chat_data, make_tiny_model

KILLS = max(1, int(os.environ.get("KILLS") or "20") // 5)
SEED = int(os.environ.get("SOAK_SEED") or time.time())
ROLES = ("inspect", "probe", "export")
SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "gradient_accumulation": 1,
    "max_seq_length": 64,
    "num_epochs": 1,
    "lora_layers": 2,
    "learning_rate": 1e-3,
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 * KILLS + 300)]


class Killer(threading.Thread):
    """Kills, or stops for a moment, one worker of a role at some moment of its life."""

    def __init__(self, daemon: DaemonProcess, role: str, draw: random.Random) -> None:
        super().__init__(daemon=True)
        self.done: Counter[str] = Counter()
        self._daemon, self._role = daemon, role
        self._wait, self._stops = draw.uniform(0.0, 1.5), draw.random() < 0.3
        self._over = threading.Event()

    def run(self) -> None:
        """Looks for a victim until it has found one, or is told to end."""
        while not self._over.wait(0.05):
            for victim in self._daemon.workers():
                with contextlib.suppress(psutil.Error):
                    if victim.cmdline()[-2] == self._role:
                        self._strike(victim)
                        return

    def end(self) -> None:
        """Returns when it has ended."""
        self._over.set()
        self.join()

    def _strike(self, victim: psutil.Process) -> None:
        time.sleep(self._wait)
        if self._stops:
            victim.send_signal(signal.SIGSTOP)
            time.sleep(1.0)
            victim.send_signal(signal.SIGCONT)
        else:
            victim.kill()
        self.done[f"{'stop' if self._stops else 'kill'} {self._role}"] += 1


@contextlib.contextmanager
def killing(killer: Killer) -> Iterator[None]:
    killer.start()
    try:
        yield
    finally:
        killer.end()


def test_no_kill_of_a_passing_worker_fails_a_job_or_leaves_anything(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    print(f"\nSOAK_SEED={SEED}")
    draw, done = random.Random(SEED), Counter[str]()
    make_tiny_model(tmp_path / "model", layers=2)
    make_chat_data(tmp_path, train=20, valid=6)
    undisturbed, outputs = b"", []
    wrong: list[str] = []
    for number in range(4 * KILLS):
        if done.total() >= KILLS:
            break
        output = tmp_path / f"out{number}"
        outputs.append(output)
        role = ROLES[number % len(ROLES)]
        _forget(daemon)
        killer = Killer(daemon, role, draw)
        with killing(killer) if role != "export" and number else contextlib.nullcontext():
            job = daemon.submit(_spec(tmp_path, output)).job.id
            state = daemon.wait_for_state(job, JobState.SUCCEEDED, JobState.FAILED, seconds=180)
        done += killer.done
        if state is not JobState.SUCCEEDED:
            wrong.append(f"job {job}: {daemon.job(job).cause.text}")
            continue
        adapter = (output / "adapters" / "adapters.safetensors").read_bytes()
        undisturbed = undisturbed or adapter
        if adapter != undisturbed:
            wrong.append(f"job {job}: another adapter")
        if role == "export":
            killer = Killer(daemon, role, draw)
            with killing(killer), contextlib.suppress(grpc.RpcError):  # the export that was killed
                _export(daemon, job, tmp_path / f"model{number}")
            done += killer.done
            if not (tmp_path / f"model{number}" / "config.json").exists():
                _export(daemon, job, tmp_path / f"model{number}")
    assert daemon.terminate() == 0
    left = left_over(daemon, *outputs) + [str(path) for path in tmp_path.glob(".*.partial")]
    print(f"{dict(done)}, wrong: {wrong}, left over: {left}")
    assert done and not wrong and not left


def _forget(daemon: DaemonProcess) -> None:
    """What was inspected and measured before: else no worker would do it again."""
    daemon.kill()
    shutil.rmtree(daemon.home.learned, ignore_errors=True)
    daemon.start()


def _spec(folder: Path, output: Path) -> JobSpec:
    files = [str(folder / f"{name}.jsonl") for name in ("train", "valid")]
    return JobSpec(str(folder / "model"), *files, str(output), settings=SETTINGS)


def _export(daemon: DaemonProcess, job: int, output: Path) -> None:
    stub = exports_pb2_grpc.ExportsStub(daemon.channel)
    request = exports_pb2.ExportRequest(job_id=job, output=str(output), wait=True)
    assert any(event.HasField("exported") for event in stub.Run(request, timeout=120))

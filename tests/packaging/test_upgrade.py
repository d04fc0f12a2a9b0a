"""An upgrade in mid-training: the training ends as if nothing had happened, watchers lose nothing.

`before/` holds the wheel of commit 0ec674a (`python -m build --wheel`), the state of the project
before definitions, formats and modules changed.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from safetrain_shared.events import Event, StepDone
from safetrain_shared.jobs import JobSpec, JobState
from tests.harness import DaemonProcess, kill_all, wait_for
from tests.tiny import make_chat_data, make_tiny_model

ROOT = Path(__file__).resolve().parents[2]
OLD = Path(__file__).parent / "before" / "safetrain-0.1.0-py3-none-any.whl"
SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "gradient_accumulation": 1,
    "max_seq_length": 64,
    "num_epochs": 8,
    "log_steps": 1,
    "save_steps": 5,
    "eval_steps": 20,
    "lora_layers": 2,
    "lora_dropout": 0.1,  # so that the random state must be carried over, too
    "learning_rate": 1e-3,
    "seed": 7,
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # `make upgrade`


class Watcher(threading.Thread):
    """Follows a job to its end, over restarts of the daemon."""

    def __init__(self, daemon: DaemonProcess, job_id: int) -> None:
        super().__init__(daemon=True)
        self.events: list[Event] = []
        self._daemon, self._job = daemon, job_id
        self.start()

    def run(self) -> None:
        while True:
            seen = max((event.seq for event in self.events), default=0)
            try:
                self.events += self._daemon.watch(self._job, seen, follow=True)
                return
            except (grpc.RpcError, ValueError):  # the daemon, or the channel, is gone
                threading.Event().wait(0.05)


def install(wheel: Path, target: Path) -> None:
    """Put `wheel` into the folder `target`, in place of any version that is there."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--upgrade", "--target", target, wheel], check=True, timeout=120)


def build(folder: Path) -> Path:
    """The wheel of the working tree."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def spec_of(folder: Path, output: Path) -> JobSpec:
    train, valid = str(folder / "train.jsonl"), str(folder / "valid.jsonl")
    return JobSpec(str(folder / "model"), train, valid, str(output), settings=SETTINGS)


def versions(processes: list[psutil.Process], target: Path) -> set[bool]:
    """For each process, whether it runs what was installed in `target`."""
    return {process.environ().get("PYTHONPATH") == str(target) for process in processes}


def test_an_upgrade_in_mid_training_changes_nothing(tmp_path: Path, home: Path) -> None:
    make_tiny_model(tmp_path / "model")
    make_chat_data(tmp_path, train=20, valid=4)
    target = tmp_path / "installed"
    install(OLD, target)
    new = build(tmp_path / "dist")
    installed = {"PYTHONPATH": str(target)}
    daemon = DaemonProcess(home, env=installed)
    undisturbed = DaemonProcess(home.with_name("undisturbed"), env=installed)
    try:
        daemon.start()
        job = daemon.submit(spec_of(tmp_path, tmp_path / "upgraded")).job.id
        watcher = Watcher(daemon, job)
        wait_for(lambda: any(_step(event) >= 8 for event in watcher.events), 90, "it trains")
        (worker,) = daemon.workers()
        assert versions([worker], target) == {True}
        assert (target / "safetraind" / "conductor.py").exists(), "what the new one does not have"
        worker.suspend()  # the upgrade shall meet it in mid-training, however fast it is
        install(new, target)
        assert not (target / "safetraind" / "conductor.py").exists(), "the old version is gone"
        daemon.kill()
        daemon.start()
        told = len(watcher.events)
        worker.resume()
        wait_for(lambda: len(watcher.events) > told + 3, 60, "the old worker goes on")
        kill_all([worker])  # the new version resumes from the old one's checkpoint
        daemon.wait_for_state(job, JobState.SUCCEEDED)
        assert daemon.job(job).attempt == 2
        undisturbed.start()
        calm = undisturbed.submit(spec_of(tmp_path, tmp_path / "calm")).job.id
        undisturbed.wait_for_state(calm, JobState.SUCCEEDED)
        watcher.join(30)
        every = list(daemon.watch(job))
    finally:
        daemon.end()
        undisturbed.end()
    name = "adapters/adapters.safetensors"
    upgraded, expected = (tmp_path / part / name for part in ("upgraded", "calm"))
    assert upgraded.read_bytes() == expected.read_bytes()
    assert [event.seq for event in watcher.events] == [event.seq for event in every]
    assert len({event.seq for event in every}) == len(every)
    assert {_step(event) for event in every} >= set(range(1, 81)), "80 steps were logged"


def _step(event: Event) -> int:
    return event.body.step if isinstance(event.body, StepDone) else 0

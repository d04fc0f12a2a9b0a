"""Random kills of daemon, worker, keeper and all, over many jobs; the report adds up over runs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from safetrain_shared.events import CheckpointSaved, Evaluated, StepDone
from safetrain_shared.jobs import FINAL, JobSpec, JobState
from tests.daemon.conftest import MakeSpec
from tests.daemon.test_accidents import Watcher, read_result, result_of
from tests.harness import DaemonProcess, kill_all, wait_for
from tests.soak.holders import Holders
from tests.soak.left_over import left_over
from tests.tiny import make_chat_data, make_tiny_model

KILLS = int(os.environ.get("KILLS") or "20")
SEED = int(os.environ.get("SOAK_SEED") or time.time())
REPORT = Path("reports/soak_kills.json")
STEPS = 150
WATCHERS = 10
REAL_EVERY = 8  # jobs: one of them really trains, the others play
STOPPED_SECONDS = 0.7  # that a process stands still, before it goes on
WRONG = ("lost", "doubled", "wrong", "stuck", "holders at once", "left over")
# Dropout, accumulation, gradient checkpointing, and evaluation and checkpoints out of step.
REAL: dict[str, Any] = {
    "batch_size": 1,
    "gradient_accumulation": 2,
    "max_seq_length": 192,
    "learning_rate": 1e-2,
    "num_epochs": 6,
    "lora_layers": 2,
    "lora_dropout": 0.2,
    "gradient_checkpointing": True,
    "save_steps": 3,
    "eval_steps": 4,
    "log_steps": 1,
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(20 * KILLS + 300)]


class Killer:
    """Kills at random, but a worker only once it has brought a new checkpoint: three attempts
    without one are meant to fail.
    """

    def __init__(self, daemon: DaemonProcess, draw: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._daemon, self._draw = daemon, draw
        self._step = 0

    def strike(self, job_id: int) -> None:
        """One kill, and a daemon again if it was the victim."""
        time.sleep(self._draw.uniform(0.0, 0.8))
        step = self._daemon.job(job_id).step
        kinds = ["daemon", "keeper", "stop daemon", "stop keeper", "stop worker"]
        if step > self._step + 5:
            kinds += ["worker", "worker and keeper", "all"]
        kind = self._draw.choice(kinds)
        if kind in ("worker", "worker and keeper", "all"):
            self._step = step
        if kind.startswith("stop"):
            self._stop(kind)
        else:
            self._kill(kind)
        self.done[kind] += 1

    def next_job(self) -> None:
        """A new job begins at step 0."""
        self._step = 0

    def _stop(self, kind: str) -> None:
        """Lets them stand still for a moment."""
        if kind == "stop daemon":
            assert self._daemon.process is not None
            victims = [psutil.Process(self._daemon.process.pid)]
        else:
            victims = self._daemon.workers() if "worker" in kind else self._daemon.keepers()
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for victim in victims:
                with contextlib.suppress(psutil.Error):
                    victim.send_signal(number)
            time.sleep(STOPPED_SECONDS if number == signal.SIGSTOP else 0.0)

    def _kill(self, kind: str) -> None:
        victims = self._daemon.workers() if "worker" in kind or kind == "all" else []
        victims += self._daemon.keepers() if "keeper" in kind or kind == "all" else []
        kill_all(victims)
        if kind in ("daemon", "all"):
            self._daemon.kill()
            self._daemon.start()


@dataclass(frozen=True)
class Trained:
    """All that a real training computed."""

    losses: dict[int, tuple[float, float, int]]
    evaluations: dict[int, float]
    adapter: bytes
    optimizer: bytes
    best: bytes


def test_no_kill_loses_doubles_or_changes_anything(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    print(f"\nSOAK_SEED={SEED}")
    playing.start()
    undisturbed = _undisturbed(playing, tmp_path)
    killer, holders = Killer(playing, random.Random(SEED)), Holders(playing)
    found: Counter[str] = Counter()
    while killer.done.total() < KILLS and not found["stuck"]:
        real = found["jobs"] % REAL_EVERY == REAL_EVERY // 2
        found["jobs"] += 1
        found["real jobs"] += real
        killer.next_job()
        output = f"out{found['jobs']}"
        play = make_spec(output, name="pace=0.02", num_epochs=STEPS // 10, save_steps=2)
        spec = _real_spec(tmp_path, output) if real else play
        job_id = playing.submit(spec).job.id
        watchers = [Watcher(playing, job_id) for _ in range(WATCHERS)]
        while playing.state(job_id) not in FINAL and killer.done.total() < KILLS:
            killer.strike(job_id)
        found += _judged(playing, job_id, watchers)
        if real:
            found["wrong"] += _trained(playing, job_id, tmp_path / output) != undisturbed
        else:
            found["wrong"] += _read(tmp_path / output) != result_of(STEPS)
    holders.end()
    outputs = [tmp_path / f"out{number}" for number in range(1, found["jobs"] + 1)]
    playing.terminate()
    left = left_over(playing, *outputs)
    print("\nleft over:", left)
    found["left over"] = len(left)
    found["holders at once"] = len(holders.at_once)
    found["looks for holders"], found["of them found one"] = holders.looks, holders.held
    _report({"seed": SEED, "kills": killer.done.total(), **killer.done, **found})
    assert holders.held
    assert not {key: found[key] for key in WRONG if found[key]}


def _judged(daemon: DaemonProcess, job_id: int, watchers: list[Watcher]) -> Counter[str]:
    """Waits for the end of a job, and counts what went wrong with it and with its events."""
    found: Counter[str] = Counter()
    try:
        wait_for(lambda: daemon.state(job_id) in FINAL, 60)
        found["wrong"] += daemon.state(job_id) is not JobState.SUCCEEDED
    except AssertionError:
        found["stuck"] += 1
    told = list(daemon.watch(job_id))
    watermark = [event.seq for event in told if event.seq]
    found["events"] += len(watermark)
    found["doubled"] += len(watermark) - len(set(watermark))
    found["lost"] += max(watermark) - len(set(watermark))  # numbers that nothing was told with
    steps = {event.body.step for event in told if isinstance(event.body, StepDone)}
    found["lost"] += max(steps, default=0) - len(steps)
    for watcher in watchers:
        _await_end(watcher, watermark[-1])
        found["deliveries"] += len(watcher.watermark)
        found["lost"] += len(set(watermark) - set(watcher.watermark))
        found["doubled"] += len(watcher.watermark) - len(set(watcher.watermark))
    return found


def _await_end(watcher: Watcher, last_seq: int) -> None:
    """Gives a watcher time for all that there is, whether the job succeeded or not."""
    try:
        wait_for(lambda: watcher.watermark and watcher.watermark[-1] >= last_seq)
    except AssertionError:
        pass  # what it has not seen is counted as lost
    watcher.ended = True


def _read(folder: Path) -> list[int]:
    try:
        return read_result(folder)
    except OSError:
        return []


def _undisturbed(daemon: DaemonProcess, folder: Path) -> Trained:
    """What a real training comes to that nobody kills."""
    make_tiny_model(folder / "tiny", layers=2, hidden=32)
    make_chat_data(folder / "chat", train=22, valid=6)
    job_id = daemon.submit(_real_spec(folder, "undisturbed")).job.id
    daemon.wait_for_state(job_id, JobState.SUCCEEDED)
    found = _trained(daemon, job_id, folder / "undisturbed")
    assert found is not None
    return found


def _real_spec(folder: Path, output: str) -> JobSpec:
    train, valid = (str(folder / "chat" / f"{part}.jsonl") for part in ("train", "valid"))
    model, output = str(folder / "tiny"), str(folder / output)
    return JobSpec(model, train, valid, output, name="real=1", settings=REAL)


def _trained(daemon: DaemonProcess, job_id: int, output: Path) -> Trained | None:
    """What a real training came to; None where it did not come to its end."""
    bodies = [event.body for event in daemon.watch(job_id)]
    saved = [body for body in bodies if isinstance(body, CheckpointSaved)]
    try:
        last = Path(max(saved, key=lambda body: body.step).path)
        return Trained(
            {b.step: (b.loss, b.grad_norm, b.tokens) for b in bodies if isinstance(b, StepDone)},
            {body.step: body.loss for body in bodies if isinstance(body, Evaluated)},
            (last / "adapters.safetensors").read_bytes(),
            (last / "optimizer.safetensors").read_bytes(),
            (output / "adapters" / "adapters.safetensors").read_bytes(),
        )
    except (OSError, ValueError):
        return None


def _report(run: dict[str, int]) -> None:
    """Adds this run to the report, and prints the sums."""
    REPORT.parent.mkdir(exist_ok=True)
    runs = json.loads(REPORT.read_text()) if REPORT.exists() else []
    runs.append(run)
    REPORT.write_text(json.dumps(runs, indent=1) + "\n")
    total: Counter[str] = Counter()
    for one in runs:
        total += Counter({key: value for key, value in one.items() if key != "seed"})
    zero = {key: total[key] for key in WRONG}
    print(f"\nthis run: {run}\nall {len(runs)} runs: {dict(total) | zero}")

"""What a checkpoint costs, and what kills change in the result.

`python -m benchmarks.train.durability RUN` is the training worker with its saves timed.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from safetensors.numpy import load_file

from benchmarks.conformance.material import Material, mixed
from benchmarks.conformance.ours import run_folder
from benchmarks.train import setup
from safetrain_shared.codec import to_plain
from safetrain_shared.events import CheckpointSaved, Evaluated, PhaseChanged, StepDone
from safetrain_shared.paths import RunFolder
from safetraind.storage import event_file
from safetraind.worker.training import train
from safetraind.worker.training.position import RunPosition
from safetraind.worker.training.run_files import Records

KILLS = 5
SAVES = "saves.json"
# A common epoch at the default interval: saves at steps 100, 200 and at its end. The best ones are
# among them, since evaluations come at the same steps.
EPOCH_STEPS, EPOCH_SAVES = 212, 3
EVERY_STEP: dict[str, Any] = {
    "lora_layers": 16,
    "num_epochs": 1,
    "log_steps": 1,
    "save_steps": 1,
    "eval_steps": 4,
}
HARD: dict[str, Any] = {
    "batch_size": 2,
    "gradient_accumulation": 2,
    "lora_dropout": 0.1,
    "gradient_checkpointing": True,
    "weight_decay": 0.01,
    "learning_rate": 1e-3,
    "num_epochs": 2,
    "log_steps": 1,
    "save_steps": 3,
    "eval_steps": 2,
}


def report(model: Path) -> None:
    """Prints the cost of a checkpoint, and the differences that SIGKILLs make."""
    with tempfile.TemporaryDirectory() as folder:
        _report_cost(model, Path(folder))
        _report_kills(model, Path(folder))


def _report_cost(model: Path, folder: Path) -> None:
    run = _made(folder / "cost", model, mixed(64), EVERY_STEP)
    _finish(_start(run, timed=True), run)
    took = json.loads((run.root / SAVES).read_text())
    save, step = statistics.median(took["saves"]), statistics.median(took["steps"])
    size = _of(run, CheckpointSaved)[-1].bytes / 1e6
    share = EPOCH_SAVES * save / (EPOCH_STEPS * step + EPOCH_SAVES * save)
    spread = f"{min(took['saves']):.3f} to {max(took['saves']):.3f}"
    print(f"\nA checkpoint of {size:.1f} MB, 16 LoRA layers: {save:.3f} s ({spread}), median of")
    print(f"{len(took['saves'])} whole saves: files, hashes, sync, tables, best adapter")
    print(f"  {share:.2%} of an epoch of {EPOCH_STEPS} steps of {step:.2f} s, which saves", end=" ")
    print(
        f"{EPOCH_SAVES} times at the default\n  interval, its end and the best included", flush=True
    )


def _report_kills(model: Path, folder: Path) -> None:
    samples = mixed(30)
    straight, killed = (_made(folder / name, model, samples, HARD) for name in ("a", "b"))
    _finish(_start(straight), straight)
    draw = random.Random(setup.SEED)
    print(
        f"\nKilled {KILLS} times at random moments, seed {setup.SEED}; accumulation, dropout,",
        end=" ",
    )
    print("gradient\ncheckpointing and evaluation in between:", ", ".join(_kills(killed, draw)))
    for what, gap in _gaps(straight, killed).items():
        print(f"  {what:34} differ by at most {gap}", flush=True)


def _kills(run: RunFolder, draw: random.Random) -> Iterator[str]:
    """Kills the run again and again and finishes it; tells where it was each time."""
    for _ in range(KILLS):
        process, wanted = _start(run), len(_of(run, StepDone)) + draw.randint(1, 4)
        while len(_of(run, StepDone)) < wanted and process.poll() is None:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 2))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            raise SystemExit("the run ended before it could be killed")
        phase = _of(run, PhaseChanged)[-1].phase
        yield f"step {_of(run, StepDone)[-1].step + 1} {phase}"
    _finish(_start(run), run)


def _gaps(one: RunFolder, other: RunFolder) -> dict[str, float]:
    """The greatest absolute differences of all that both have come to."""
    steps = [
        {(s.step, "loss"): s.loss for s in _of(run, StepDone)}
        | {(s.step, "norm"): s.grad_norm for s in _of(run, StepDone)}
        for run in (one, other)
    ]
    evaluations = [{e.step: e.loss for e in _of(run, Evaluated)} for run in (one, other)]
    again: dict[int, float] = {}
    repeated = [abs(again.setdefault(s.step, s.loss) - s.loss) for s in _of(other, StepDone)]
    last = [Path(_of(run, CheckpointSaved)[-1].path) for run in (one, other)]
    adapters, optimizers = (
        [load_file(folder / f"{name}.safetensors") for folder in last]
        for name in ("adapters", "optimizer")
    )
    best = [load_file(f.parent / "adapters" / "adapters.safetensors") for f in last]
    return {
        "losses and gradients' norms": _gap(*steps),
        "losses of steps done twice": max(repeated),
        "validation losses": _gap(*evaluations),
        "last adapter": _gap(*adapters),
        "optimizer": _gap(*optimizers),
        "best adapter": _gap(*best),
    }


def _gap(one: dict[Any, Any], other: dict[Any, Any]) -> float:
    if one.keys() != other.keys():
        return float("inf")
    return max(float(np.abs(np.subtract(one[name], other[name])).max()) for name in one)


def _made(folder: Path, model: Path, samples: list[Any], chosen: dict[str, Any]) -> RunFolder:
    settings = setup.settings(**chosen)
    return run_folder(folder, Material(model, samples, mixed(4, 1)), to_plain(settings))


def _start(run: RunFolder, *, timed: bool = False) -> subprocess.Popen[bytes]:
    module = ["benchmarks.train.durability"] if timed else ["safetraind.worker", "train"]
    with run.log.open("ab") as log:
        command = [sys.executable, "-m", *module, str(run.root)]
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)


def _finish(process: subprocess.Popen[bytes], run: RunFolder) -> None:
    if process.wait() != 0:
        raise SystemExit(run.log.read_text())


def _of(run: RunFolder, kind: type) -> list[Any]:
    bodies = [read.event.body for read in event_file.read(run.events)]
    return [body for body in bodies if isinstance(body, kind)]


def _timed(folder: str) -> int:
    """Trains, and leaves the seconds of each call that saved and of each step in the run folder."""
    saves: list[float] = []

    class Timed(Records):
        def save(self, progress: RunPosition) -> None:
            before, began = self._saved_step, time.perf_counter()
            super().save(progress)
            if self._saved_step != before:
                saves.append(time.perf_counter() - began)

    with mock.patch.object(train, "Records", Timed):
        code = train.main([folder])
    run = RunFolder(Path(folder))
    pairs = itertools.pairwise(_of(run, StepDone))
    steps = [(b.tokens - a.tokens) / b.tokens_per_second for a, b in pairs]
    (run.root / SAVES).write_text(json.dumps({"saves": saves, "steps": steps}))
    return code


if __name__ == "__main__":
    sys.exit(_timed(sys.argv[1]))

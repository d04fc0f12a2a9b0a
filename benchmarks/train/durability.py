"""What a checkpoint costs, and what a kill changes in the result."""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from benchmarks.conformance.material import Material, mixed
from benchmarks.conformance.ours import run_folder
from benchmarks.conformance.trainer import SETTINGS
from safetrain_shared.events import CheckpointSaved, StepDone
from safetrain_shared.paths import RunFolder
from safetraind.files import eventlog

DEFAULT_INTERVAL = 100  # optimizer steps, the default of save_steps
CHOSEN: dict[str, Any] = {
    "lora_layers": 16,
    "dequantize": True,
    "log_steps": 1,
    "save_steps": 3,
    "lora_dropout": 0.1,
}


def report(model: Path) -> None:
    """Prints the cost of a checkpoint, and the difference that a SIGKILL makes."""
    with tempfile.TemporaryDirectory() as folder:
        material = Material(model, mixed(32), mixed(4, 1))
        runs = [run_folder(Path(folder) / name, material, SETTINGS | CHOSEN) for name in ("a", "b")]
        _work(runs[0])
        _kill_after(runs[1], steps=5)
        _work(runs[1])
        _print_cost(_of(runs[0], CheckpointSaved), _of(runs[0], StepDone))
        first, second = ({s.step: s.loss for s in _of(run, StepDone)} for run in runs)
        losses = max(abs(first[step] - second[step]) for step in first)
        print(f"  killed and resumed: losses differ by at most {losses}", end=", ")
        print(f"adapters by {_distance(*runs)}")


def _print_cost(saved: list[CheckpointSaved], steps: list[StepDone]) -> None:
    seconds = statistics.median(checkpoint.seconds for checkpoint in saved)
    tokens = [b.tokens - a.tokens for a, b in itertools.pairwise(steps)]
    times = [n / s.tokens_per_second for n, s in zip(tokens, steps[1:], strict=True)]
    step = statistics.median(times)
    share = seconds / (DEFAULT_INTERVAL * step)
    print(
        f"\nA checkpoint of {saved[-1].bytes / 1e6:.1f} MB takes {seconds:.3f} s (median of",
        end=" ",
    )
    print(f"{len(saved)}); a step {step:.2f} s: {share:.2%} of a run that saves every 100 steps")


def _start(run: RunFolder) -> subprocess.Popen[bytes]:
    with run.log.open("ab") as log:
        command = [sys.executable, "-m", "safetraind.worker", "train", str(run.root)]
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)


def _work(run: RunFolder) -> None:
    if _start(run).wait() != 0:
        raise SystemExit(run.log.read_text())


def _kill_after(run: RunFolder, steps: int) -> None:
    process = _start(run)
    while len(_of(run, StepDone)) < steps and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _of(run: RunFolder, kind: type) -> list[Any]:
    bodies = [read.event.body for read in eventlog.read(run.events)]
    return [body for body in bodies if isinstance(body, kind)]


def _distance(*runs: RunFolder) -> float:
    outputs = [Path(json.loads(run.spec.read_text())["spec"]["output"]) for run in runs]
    one, other = (load_file(o / "adapters" / "adapters.safetensors") for o in outputs)
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)

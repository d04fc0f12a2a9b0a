"""Peak memory of a step above the resident weights, each variant in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.train import lengths, setup
from safetraind.worker.training.batches import batch

ROWS, WIDTH, STEPS = 4, 256, 3
CHUNK = 64


def report(model: Path) -> None:
    """Prints the table for 4 and 16 LoRA layers."""
    print(f"\nPeak memory above the weights, batch {ROWS} × {WIDTH}, float32")
    for layers in (4, 16):
        theirs = _measured(model, "theirs", layers)
        print(f"  {layers:2} LoRA layers  mlx_lm                 {theirs / 1e6:7.0f} MB")
        for name, variant in (
            ("whole", "ours"),
            (f"loss_chunk {CHUNK}", "chunk"),
            ("and recomputed layers", "recompute"),
        ):
            found = _measured(model, variant, layers)
            print(f"                  {name:22} {found / 1e6:7.0f} MB  {found / theirs:.2f}×")


def _measured(model: Path, variant: str, layers: int) -> int:
    command = [sys.executable, "-m", "benchmarks.train.memory", str(model), variant, str(layers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    found: int = json.loads(done.stdout.splitlines()[-1])
    return found


def _one(model: Path, variant: str, layers: int) -> int:
    """The peak of one variant, from the second step on, less what stays in memory."""
    chosen: dict[str, Any] = {"lora_layers": layers}
    if variant != "theirs":
        chosen["loss_chunk"] = CHUNK if variant != "ours" else 0
        chosen["gradient_checkpointing"] = variant == "recompute"
    settings = setup.settings(**chosen)
    if variant == "theirs":
        return _theirs(model, settings)
    with tempfile.TemporaryDirectory() as folder:
        samples = lengths.samples(Path(folder) / "t", np.full(ROWS, WIDTH + 1), 49152)
        part = batch(samples, [(n,) for n in range(ROWS)], WIDTH)
    stepper = setup.ours(model, settings)
    resident = 0
    for number in range(STEPS):
        if number == 1:
            resident = mx.get_active_memory()
            mx.reset_peak_memory()
        stepper.step([part], number, 1e-5)
    return mx.get_peak_memory() - resident


def _theirs(model: Path, settings: Any) -> int:
    resident = 0
    tokens = np.random.default_rng(0).integers(5, 49152, (ROWS, WIDTH + 1))

    def batches(*_: Any, **__: Any) -> Iterator[tuple[mx.array, mx.array]]:
        nonlocal resident
        for number in range(STEPS):
            if number == 1:
                resident = mx.get_active_memory()
                mx.reset_peak_memory()
            yield mx.array(tokens), mx.array([[0, WIDTH]] * ROWS)

    setup.theirs(model, settings, batches, STEPS)
    return mx.get_peak_memory() - resident


if __name__ == "__main__":
    print(json.dumps(_one(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))

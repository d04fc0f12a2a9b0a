"""Peak memory of a step above the resident weights, each variant in a process of its own; and
whether the loss in chunks has the gradients of the whole one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner import trainer
from numpy.typing import NDArray

from benchmarks.train import setup
from safetrain_shared.settings import LOSS_CHUNK, TrainingSettings
from safetraind.worker.data.encode_chat import Encoded
from safetraind.worker.training.batches import Batch, batch
from safetraind.worker.training.dataset import write

ROWS, WIDTH, VOCABULARY = 4, 256, 49152
WARM = 32  # tokens wide: a step that is not measured, since the first one makes the moments
VARIANTS: dict[str, dict[str, Any]] = {
    "mlx_lm": {},
    "loss whole": {},
    f"loss in chunks of {LOSS_CHUNK}": {"loss_chunk": LOSS_CHUNK},
    "and layers recomputed": {"loss_chunk": LOSS_CHUNK, "gradient_checkpointing": True},
}
THEIRS, WHOLE, CHUNKED, RECOMPUTED = VARIANTS
MEASURED = {4: (THEIRS, WHOLE, CHUNKED), 16: (THEIRS, CHUNKED, RECOMPUTED)}


def report(model: Path, rounds: int) -> None:
    """Prints the peaks for 4 and 16 LoRA layers, and how far gradients are apart."""
    print(f"\nPeak memory of a step above the weights, batch {ROWS} × {WIDTH}, float32; each in a")
    print(f"process of its own, {rounds} times in turn: ratio of medians, median (least to most)")
    for layers, names in MEASURED.items():
        peaks: dict[str, list[int]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                peaks[name].append(_run("peak", model, name, layers))
        theirs = statistics.median(peaks[THEIRS])
        for name, found in peaks.items():
            least, middle, most = (f(found) / 1e6 for f in (min, statistics.median, max))
            line = f"  {layers:2} LoRA layers  {name:24} {1e6 * middle / theirs:.2f}×"
            print(line + f"  {middle:.0f} MB ({least:.0f} to {most:.0f})", flush=True)
    chunked, theirs = _run("gradients", model, CHUNKED, 4)
    print("  greatest relative difference of an adapter matrix's gradient, 4 layers, second step:")
    print(f"  in chunks from whole {chunked:.1e}, whole from mlx_lm's {theirs:.1e}", flush=True)


def _run(what: str, model: Path, name: str, layers: int) -> Any:
    command = [sys.executable, "-m", "benchmarks.train.memory", what, str(model), name, str(layers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    return json.loads(done.stdout.splitlines()[-1])


def peak(model: Path, name: str, layers: int) -> int:
    """The peak of a step of one variant, less what is there before it, in bytes."""
    chosen = setup.settings(lora_layers=layers, **VARIANTS[name])
    if name == THEIRS:
        return _peak_of_theirs(model, chosen)
    stepper = setup.ours(model, chosen)
    stepper.step([_batch(WARM)], 0, 1e-5)
    part, before = _batch(WIDTH), _begin()
    stepper.step([part], 1, 1e-5)
    return mx.get_peak_memory() - before


def _peak_of_theirs(model: Path, chosen: TrainingSettings) -> int:
    found = []

    def batches(**_: Any) -> Iterator[tuple[mx.array, mx.array]]:
        for width in (WARM, WIDTH):
            before = _begin()
            yield mx.array(_tokens(width)), mx.array([[0, width]] * ROWS)
            found.append(mx.get_peak_memory() - before)

    setup.theirs(setup.base(model), chosen, None, batches, 3)
    return found[-1]


def gradients(model: Path, _name: str, layers: int) -> list[float]:
    """How far the gradients are apart after a step: ours in chunks and whole, ours and mlx-lm's."""
    part = _batch(WIDTH)
    whole = setup.ours(model, setup.settings(lora_layers=layers))
    whole.step([part], 0, 1e-3)  # a new adapter's first matrices have no gradient
    weights = tree_flatten(whole.model.trainable_parameters())
    found = dict(tree_flatten(whole.gradients([part], 1)[1]))
    chunks = setup.ours(model, setup.settings(lora_layers=layers, **VARIANTS[CHUNKED]))
    chunks.model.load_weights(list(dict(weights).items()), strict=False)
    in_chunks = dict(tree_flatten(chunks.gradients([part], 1)[1]))
    loss = mx.value_and_grad(lambda parameters: _their_loss(whole.model, parameters))
    theirs = dict(tree_flatten(loss(whole.model.trainable_parameters())[1]))
    return [_greatest(in_chunks, found), _greatest(found, theirs)]


def _their_loss(network: Any, parameters: Any) -> mx.array:
    network.update(parameters)
    spans = mx.array([[0, WIDTH]] * ROWS)
    loss: mx.array = trainer.default_loss(network, mx.array(_tokens(WIDTH)), spans)[0]
    return loss


def _greatest(ones: dict[str, mx.array], others: dict[str, mx.array]) -> float:
    def norm(value: mx.array) -> float:
        return float(np.linalg.norm(np.array(value)))

    return max(norm(ones[name] - others[name]) / norm(others[name]) for name in others)


def _begin() -> int:
    """Bytes that are there before a step; its peak counts from here."""
    mx.reset_peak_memory()
    return mx.get_active_memory()


def _tokens(width: int) -> NDArray[np.int64]:
    return np.random.default_rng(setup.SEED).integers(5, VOCABULARY, (ROWS, width + 1))


def _batch(width: int) -> Batch:
    """The same tokens as our trainer takes them."""
    rows = [Encoded(n, row, [True] * len(row)) for n, row in enumerate(_tokens(width).tolist(), 1)]
    with tempfile.TemporaryDirectory() as folder:
        samples = write(Path(folder) / "tokens", rows, width + 1, {})
        return batch(samples, [(n,) for n in range(ROWS)], width)


if __name__ == "__main__":
    asked = {"peak": peak, "gradients": gradients}[sys.argv[1]]
    print(json.dumps(asked(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))

"""`make bench-layers`: one layer there and back, as we train it and as mlx-lm does, in one run.

The gated delta net of Qwen3.5-4B, and one of a quarter of its heads and width, on which mlx-lm's
compiled token loop fits at 1,024 tokens too; the SSD mixer of Mamba2-2.7B, and its recurrence
without the projections around it, which take as long in both; attention. Each path of each length
runs in a process of its own, several times: time is the least of all but the first, as in a
training, where a step finds the memory of the one before. Ours and mlx-lm's are compiled, as
both trainers do; mlx-lm's is also run uncompiled, because compiling makes the memory of its token
loop grow with the square of the length. Time is the processor's on a CPU, which a busy machine does
not change, and the clock's on a GPU; memory is MLX's peak above the layer's own weights. A path
whose next peak would pass --most, going by the growth so far, is left out, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import mamba2, qwen3_5, ssm

from safetraind.processes.worker_environment import for_computing
from safetraind.worker.training.block_attention import in_blocks
from safetraind.worker.training.recurrence.replacements import in_chunks

REPORT = Path("reports/layers.json")
OURS, THEIRS, EAGER = PATHS = "safetrain", "mlx-lm", "mlx-lm uncompiled"
LENGTHS = (256, 512, 1024, 2048, 4096)
_GROWTH = 3  # of a peak when the length doubles
_SECONDS = 400  # for one length of one path
_PASSES, _ENOUGH = 7, 5.0  # measured passes, and seconds of them after which no other begins


def main() -> int:
    """Measures and prints; with --one, this is the process that measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=float, default=8.0, help="GB that a path may take")
    parser.add_argument("--lengths", type=int, nargs="*", default=LENGTHS)
    parser.add_argument("--layers", nargs="*", default=list(LAYERS))
    parser.add_argument("--one", nargs=3, metavar=("LAYER", "PATH", "LENGTH"))
    chosen = parser.parse_args()
    if chosen.one:
        layer, path, length = chosen.one
        print(json.dumps(_measured(layer, path, int(length))))
        return 0
    print(f"{platform.platform()}, mlx {version('mlx')}, load {os.getloadavg()[0]:.1f}")
    found = [row for layer in chosen.layers for row in _rows(layer, chosen.lengths, chosen.most)]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _rows(layer: str, lengths: list[int], most: float) -> list[dict[str, Any]]:
    print(f"\n{layer}\n{'tokens':>8}" + "".join(f"{path:>36}" for path in PATHS))
    rows, last = list[dict[str, Any]](), dict[str, float]()
    for length in lengths:
        row: dict[str, Any] = {"layer": layer, "tokens": length}
        for path in PATHS:
            if path in last and _GROWTH * last[path] > most:
                continue
            row[path] = one(layer, path, length)
            last[path] = row[path]["gb"] if row[path] else most
        rows.append(row)
        cells = (_cell(row.get(path), row[OURS]) for path in PATHS)
        print(f"{length:8}" + "".join(f"{cell:>36}" for cell in cells), flush=True)
    return rows


def _cell(found: dict[str, float] | None, ours: dict[str, float]) -> str:
    """Seconds and peak, and how many times ours each is."""
    if not found:
        return "left out"
    times = [f"({found[n] / ours[n]:.1f}x)" if found is not ours else "" for n in ("s", "gb")]
    return f"{found['s']:.2f} s {times[0]} {found['gb']:.3f} GB {times[1]}"


def one(layer: str, path: str, length: int) -> dict[str, float] | None:
    """Seconds and peak GB of one path, measured by a child; None where it was not done in time."""
    command = [sys.executable, "-m", "benchmarks.bench_layers", "--one", layer, path, str(length)]
    environment = for_computing({**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(layer: str, path: str, length: int) -> dict[str, float]:
    mx.random.seed(0)
    function, inputs = LAYERS[layer](length)
    weights = mx.random.normal(function(*[x[:, :1] for x in inputs]).shape[-1:])

    def loss(*inputs: mx.array) -> mx.array:
        return (function(*inputs) * weights).sum()

    places = in_chunks() if path == OURS else nullcontext()
    blocks = in_blocks(causal_masks=True) if path == OURS else nullcontext()
    step = mx.value_and_grad(loss, argnums=list(range(len(inputs))))
    step = step if path == EAGER else mx.compile(step)
    clock = time.process_time if mx.default_device() == mx.Device(mx.cpu) else time.perf_counter
    with places, blocks:
        mx.eval(step(*inputs))
    mx.reset_peak_memory()
    before, seconds = mx.get_active_memory(), list[float]()
    while len(seconds) < _PASSES and sum(seconds) < _ENOUGH:
        began = clock()
        mx.eval(step(*inputs))
        seconds.append(clock() - began)
    return {"s": min(seconds), "gb": (mx.get_peak_memory() - before) / 1e9}


Layer = tuple[Callable[..., mx.array], list[mx.array]]


def _gated_delta(length: int, parts: int = 1) -> Layer:
    """One of `parts` equal parts of the layer: its heads and its width."""
    hidden = 2560 // parts
    arguments = qwen3_5.TextModelArgs(
        hidden_size=hidden,
        linear_num_value_heads=32 // parts,
        linear_num_key_heads=16 // parts,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
    )
    return _frozen(qwen3_5.GatedDeltaNet(arguments)), _rows_of(length, hidden)


def _ssd(length: int) -> Layer:
    arguments = mamba2.ModelArgs(
        model_type="mamba2",
        vocab_size=32,
        hidden_size=2560,
        intermediate_size=5120,
        num_heads=80,
        head_dim=64,
        state_size=128,
        n_groups=1,
        num_hidden_layers=1,
        layer_norm_epsilon=1e-5,
        conv_kernel=4,
        use_bias=False,
        use_conv_bias=True,
        tie_word_embeddings=True,
        time_step_limit=(0.001, 100.0),
        time_step_rank="auto",
    )
    return _frozen(mamba2.Mamba2Block(arguments, 0)), _rows_of(length, 2560)


def _ssd_alone(length: int) -> Layer:
    heads, size, state = 80, 64, 128
    rate = mx.log(mx.arange(1, heads + 1, dtype=mx.float32))
    ones = mx.ones(heads)

    def run(x: mx.array, b: mx.array, c: mx.array, dt: mx.array) -> mx.array:
        parts = (
            part.reshape(*part.shape[:2], -1, n) for part, n in ((x, size), (b, state), (c, state))
        )
        x, b, c = parts
        y, _ = ssm.ssm_update(x, rate, b, c, ones, dt, ones, None, (0.001, 100.0))
        return y.flatten(2)

    sizes = (heads * size, state, state, heads)
    return run, [_rows_of(length, size)[0] for size in sizes]


def _attention(length: int) -> Layer:
    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        q, k, v = (x.reshape(*x.shape[:2], -1, 64).swapaxes(1, 2) for x in (q, k, v))
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=0.125, mask="causal")

    return attend, [_rows_of(length, 64 * heads)[0] for heads in (8, 2, 2)]


def _frozen(layer: nn.Module) -> Callable[..., mx.array]:
    layer.freeze()
    layer.train()
    mx.eval(layer.parameters())
    return lambda x: layer(x, None)


def _rows_of(length: int, size: int) -> list[mx.array]:
    row = mx.random.normal((1, length, size))
    mx.eval(row)
    return [row]


LAYERS: dict[str, Callable[[int], Layer]] = {
    "gated delta net of Qwen3.5-4B": _gated_delta,
    "gated delta net, a quarter of it": partial(_gated_delta, parts=4),
    "SSD mixer of Mamba2-2.7B": _ssd,
    "SSD recurrence of Mamba2-2.7B": _ssd_alone,
    "attention, 8 heads of 64, 2 of keys": _attention,
}

if __name__ == "__main__":
    sys.exit(main())

"""Several ranks: bytes of a step, the time of a sum, and the speed-up simulated for real links.

`make bench-ranks`. Run: steps of one process of each number of rows that a rank of 2 to 8 has, on
the demo model; sums over 2, 3 and 4 ranks on this machine, over loopback, and the bytes that they
put on it. Simulated: machines like this one, joined by links of 1, 10 and 40 Gbit/s.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from mlx.utils import tree_flatten

from benchmarks.train.setup import ours, settings
from safetrain_shared.paths import RunFolder, home
from safetraind.batching import quarters
from safetraind.processes.rank_links import links_between
from safetraind.rank_speed import bytes_sent, ring_seconds, speedup
from safetraind.worker.training.batches import Batch

ROWS, WIDTH, LAYERS = 16, 128, 16  # samples of a step, their tokens, the layers with an adapter
MACHINES = range(2, 9)
LINKS = {"1 Gbit/s": 1e9, "10 Gbit/s": 10e9, "40 Gbit/s": 40e9}
# TCP over Ethernet: 1,448 bytes of content in a frame of 1,538 on the wire.
GOODPUT = 1448 / 1538
LATENCY = 1e-4  # seconds a message, assumed: a switch, two network stacks and a thread each
STEPS, SUMS = 4, 30


def window(rows: int, at_once: int = 4) -> list[Batch]:
    """Rows of random tokens of which the second half is learned, in micro-batches."""
    return [_batch(min(at_once, rows - cut)) for cut in range(0, rows, at_once)]


def _batch(rows: int) -> Batch:
    numbers = np.random.default_rng(rows)
    inputs = numbers.integers(5, 1000, (rows, WIDTH)).astype(np.int32)
    learned = np.zeros((rows, WIDTH), bool)
    learned[:, WIDTH // 2 :] = True
    places = np.flatnonzero(learned).astype(np.int32)
    assert quarters(len(places), learned.size) == len(places)
    return Batch(
        inputs=inputs,
        places=places,
        targets=inputs.reshape(-1)[places],
        weights=np.ones(len(places), np.float32),
        segments=None,
        positions=None,
        samples=tuple(range(rows)),
        tokens=rows * WIDTH,
        learned=len(places),
    )


def measured_steps(model: Path) -> tuple[dict[int, float], float, int]:
    """Seconds of a step without its update, by its rows; of the update; bytes of the gradient."""
    stepper = ours(model, settings(lora_layers=LAYERS))
    seconds, updates = {}, []
    for rows in sorted({-(-ROWS // ranks) for ranks in (1, *MACHINES)}):
        stepper.step(window(rows), 0, 1e-5)  # compiles
        done = [stepper.step(window(rows), number, 1e-5) for number in range(STEPS)]
        seconds[rows] = statistics.median(one.seconds - one.update_seconds for one in done)
        updates += [one.update_seconds for one in done]
    leaves: Any = tree_flatten(stepper.model.trainable_parameters())
    return seconds, statistics.median(updates), 4 * sum(array.size for _, array in leaves)


def measured_sum(ranks: int, size: int) -> tuple[float, float]:
    """Seconds of one sum of `size` bytes over ranks on this machine, the median; and the bytes it
    puts on the loopback device, by the kernel's count, which counts those of others too.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "runs" / "1")
        run.root.mkdir(parents=True)
        before = _on_loopback()
        with links_between(run, ranks) as links:
            started = [
                subprocess.Popen(
                    [sys.executable, "-c", _SUMS, str(size // 4), str(SUMS)],
                    stdout=subprocess.PIPE,
                    env={**_environment(), **link.environment},
                )
                for link in links
            ]
        answers = [json.loads(process.communicate()[0]) for process in started]
        return statistics.median(answers[0]), (_on_loopback() - before) / SUMS


_SUMS = """
import json, sys, time
import mlx.core as mx
group = mx.distributed.init(strict=True, backend="ring")
vector = mx.ones(int(sys.argv[1]))
mx.eval(vector)
seconds = []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    mx.eval(mx.distributed.all_sum(vector, group=group, stream=mx.cpu))
    seconds.append(time.perf_counter() - began)
print(json.dumps(seconds))
"""


def _environment() -> dict[str, str]:
    return dict(os.environ)


def _on_loopback() -> int:
    """The bytes that this machine sent over loopback so far; 0 where no file says it."""
    file = Path("/proc/net/dev")
    lines = file.read_text().splitlines() if file.exists() else []
    return sum(int(line.split()[9]) for line in lines if line.strip().startswith("lo:"))


def simulated(
    seconds: dict[int, float], update: float, size: int, bits_per_second: float, machines: int
) -> float:
    """The speed-up of machines like this one over such links."""
    rows = -(-ROWS // machines)
    link = GOODPUT * bits_per_second
    adding = ring_seconds(size, machines, bits_per_second=link, latency=LATENCY)
    alone = seconds[ROWS] + update
    return alone / (seconds[rows] + update + adding)


def main() -> None:
    """Print the tables of docs/several-machines.md."""
    seconds, update, size = measured_steps(home().models / "demo")
    print(f"gradient: {size:,} bytes; update {update:.4f} s")
    for rows, value in seconds.items():
        print(f"| {rows} rows | {value:.3f} s |")
    for ranks in (2, 3, 4):
        took, moved = measured_sum(ranks, size)
        due = bytes_sent(size, ranks)
        print(f"| {ranks} ranks | {due:,.0f} | {moved / ranks:,.0f} | {took:.4f} s |")
    print("| machines | ideal | " + " | ".join(LINKS) + " |")
    for machines in MACHINES:
        cells = [simulated(seconds, update, size, bits, machines) for bits in LINKS.values()]
        ideal = speedup(seconds[ROWS] + update, machines, 0.0)
        print(f"| {machines} | {ideal:.2f} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()

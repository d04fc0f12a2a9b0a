"""Several ranks: bytes of a step, the time of a sum, and the speed-up simulated for real links.

`make bench-ranks`. Run: steps of one process, of each number of rows that one of 2 to 8 ranks has,
on the demo model; sums over 2, 3 and 4 hosts on this machine, over links of 1 Gbit/s, and the bytes
that they send. Simulated: 2 to 8 machines like this one, joined by links of 1, 10 and 40 Gbit/s.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mlx.utils import tree_flatten

from benchmarks.train.setup import ours, settings
from safetrain_shared.paths import home
from safetraind.batching import quarters
from safetraind.rank_speed import bytes_sent, ring_seconds
from safetraind.worker.training.batches import Batch

ROWS, WIDTH, LAYERS = 8, 64, 16  # samples of a step, their tokens, the layers with an adapter
MACHINES = range(2, 9)
LINKS = {"1 Gbit/s": 1e9, "10 Gbit/s": 10e9, "40 Gbit/s": 40e9}
# TCP over Ethernet: 1,448 bytes of content in a frame of 1,538 on the wire.
GOODPUT = 1448 / 1538
LATENCY = 1e-4  # seconds a message, assumed: a switch, two network stacks and a thread each
STEPS, SUMS = 3, 20
_LINK = Path(__file__).with_name("ranks") / "link.sh"


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


def measured_sums(hosts: int, size: int, rate: str) -> tuple[float, float] | None:
    """Seconds of one sum of `size` bytes over hosts on this machine, the median; and the bytes that
    each sent in it. None where network namespaces cannot be made: not on Linux, or not as root.
    """
    if sys.platform != "linux" or os.geteuid() or shutil.which("tc") is None:
        return None
    command = ["unshare", "-n", "bash", str(_LINK), sys.executable]
    command += [str(hosts), rate, str(size // 4), str(SUMS)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [json.loads(line) for line in output.splitlines()]
    seconds = next(line["seconds"] for line in found if "seconds" in line)
    sent = statistics.median(line["sent"] for line in found if "sent" in line)
    return statistics.median(seconds), sent / SUMS


def _ring(size: int, machines: int, bits_per_second: float) -> float:
    """Seconds of one sum over links of that speed on the wire."""
    return ring_seconds(size, machines, bits_per_second=GOODPUT * bits_per_second, latency=LATENCY)


def simulated(seconds: dict[int, float], update: float, machines: int, adding: float) -> float:
    """The speed-up of machines like this one, whose sums take `adding` seconds."""
    alone = seconds[ROWS] + update
    return alone / (seconds[-(-ROWS // machines)] + update + adding)


def main() -> None:
    """Print the tables of docs/several-ranks.md."""
    seconds, update, size = measured_steps(home().models / "demo")
    print(f"gradient {size:,} bytes; update {update:.4f} s; load {os.getloadavg()[0]:.1f}")
    for rows, value in seconds.items():
        print(f"| {rows} | {value:.2f} s |")
    print("| ranks | bytes due | sent | sum due | sum |")
    for hosts in (2, 3, 4):
        if (found := measured_sums(hosts, size, "1gbit")) is not None:
            due, ring = bytes_sent(size, hosts), _ring(size, hosts, 1e9)
            print(f"| {hosts} | {due:,.0f} | {found[1]:,.0f} | {ring:.3f} s | {found[0]:.3f} s |")
    print("| machines | no link | " + " | ".join(LINKS) + " |")
    for machines in MACHINES:
        adding = [0.0, *(_ring(size, machines, bits) for bits in LINKS.values())]
        cells = [simulated(seconds, update, machines, each) for each in adding]
        print(f"| {machines} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()

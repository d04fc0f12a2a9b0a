"""`python -m benchmarks.bench_train`: the trainer against mlx-lm's own, side by side in one run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.train import breakdown, durability, memory, speed, telemetry
from safetrain_shared.paths import home
from safetraind import host

SECTIONS = ("speed", "breakdown", "memory", "durability", "telemetry")


def main() -> None:
    """Prints every figure with the settings it was measured at."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=home().models / "demo")
    parser.add_argument("--rounds", type=int, default=3, help="of the speed, at least 2")
    parser.add_argument("--layers", type=int, default=4, help="with an adapter, for the speed")
    parser.add_argument("--peaks", type=int, default=2, help="that each variant's memory is taken")
    parser.add_argument("--only", choices=SECTIONS, action="append")
    chosen = parser.parse_args()
    _with_fast_matrices()
    model, wanted = chosen.model.resolve(), chosen.only or SECTIONS
    if "speed" in wanted:
        speed.report(model, chosen.rounds, chosen.layers)
    if "breakdown" in wanted:
        breakdown.report(model)
    if "memory" in wanted:
        memory.report(model, chosen.peaks)
    if "durability" in wanted:
        durability.report(model)
    if "telemetry" in wanted:
        telemetry.report(model)


def _with_fast_matrices() -> None:
    """Begins again with OpenBLAS preloaded, as the daemon starts its workers: for both trainers."""
    if (blas := host.find_openblas()) and blas not in os.environ.get("LD_PRELOAD", ""):
        os.environ["LD_PRELOAD"] = blas
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.bench_train", *sys.argv[1:]])


if __name__ == "__main__":
    main()

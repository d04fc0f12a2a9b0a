"""`python -m benchmarks.bench_preflight`: what preflight says, against what training then does.

Over models of many shapes and four budgets each, drawn by a seed that it prints: the peak that
small steps extrapolate to and the one measured, against the peak of the training itself; whether
the training ends inside its budget; whether other settings would have been faster. Then the demo's
preflight, cold and warm, and `validate` on a large file. A report is written as JSON.

A plan of the grid may be so small that it is measured at once. `extrapolated` therefore draws wider
batches and fixes how they are computed, so that small steps come before.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.preflight import grid, validation
from benchmarks.preflight.grid import Cell
from benchmarks.preflight.models import SHAPES, make_data, make_model
from safetrain_shared.jobs import JobSpec
from safetrain_shared.paths import home
from safetrain_shared.settings import LOSS_CHUNK
from safetraind.planner.degree import Degree
from safetraind.preflight.preflight_run import PreflightRun

# Each micro-batch comes once an epoch, and MLX's peak of it differs from time to time: it allocates
# ahead of the thread that computes. On qwen3_moe one epoch took 163 MB at its peak, three took 170.
_TRAINED = {"num_epochs": 3, "log_steps": 1}
# Budgets on the way from what the leanest setup takes (0) to the best plan in ample memory (1).
BUDGETS = (1.5, 0.8, 0.4, -0.2)
SAMPLE = Path(__file__).parent.parent / "data"


def main() -> None:
    """Prints every figure with its goal; nothing is tuned to it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--cells", type=int, default=8, help="drawn from the grid; 0: all")
    parser.add_argument("--models", nargs="*", help="only those whose name begins so")
    parser.add_argument("--validate-bytes", type=int, default=1_000_000_000)
    parser.add_argument("--demo", type=Path, default=home().models / "demo")
    parser.add_argument("--report", type=Path, default=Path("bench_preflight.json"))
    parts = ("grid", "extrapolated", "demo", "validate")
    parser.add_argument("--only", choices=parts, action="append")
    chosen = parser.parse_args()
    wanted = chosen.only or parts
    with tempfile.TemporaryDirectory(prefix="bench-preflight-") as name:
        root = Path(name)
        if "grid" in wanted:
            _write(
                chosen.report, chosen.seed, _grid(chosen.seed, chosen.cells, chosen.models, root)
            )
        if "extrapolated" in wanted:
            _extrapolated(chosen.seed, chosen.models, root)
        if "demo" in wanted:
            _demo(chosen.demo.resolve(), root / "demo")
        if "validate" in wanted:
            validation.report(root, chosen.validate_bytes)


def _grid(seed: int, count: int, models: Sequence[str] | None, root: Path) -> list[Cell]:
    draw = random.Random(seed)
    wanted = tuple(models or [""])
    shapes = [n for n, shape in enumerate(SHAPES) if shape.name.startswith(wanted)]
    places = [(shape, budget) for shape in shapes for budget in BUDGETS]
    drawn = draw.sample(places, min(count, len(places))) if count else places
    print(f"grid: {len(drawn)} of {len(places)} cells, seed {seed}\n", flush=True)
    cells: list[Cell] = []
    for place in sorted({place for place, _ in drawn}):
        shape, folder = SHAPES[place], root / f"model-{place}"
        draw = random.Random(f"{seed} {shape.name}")  # the same data whatever other models are run
        model = make_model(shape, folder / "model")
        longest = draw.choice((96, 160, 256))
        train, valid = make_data(folder / "data", draw, samples=16, longest=longest)
        spec = JobSpec(str(model), str(train), str(valid), str(folder / "out"), settings=_TRAINED)
        least, ample = grid.extremes(spec, folder)
        for share in sorted(share for drawn_place, share in drawn if drawn_place == place):
            own = Path(shutil.copytree(folder / "home", folder / f"{share}" / "home")).parent
            budgeted = _budgeted(spec, share, least, ample)
            cells.append(grid.run(shape.name, budgeted, own, speeds=True))
            _say(cells[-1], share)
        shutil.rmtree(folder)
    _summarise(cells)
    return cells


def _extrapolated(seed: int, models: Sequence[str] | None, root: Path) -> None:
    """Two drawn batches for each model, in ample memory."""
    draw = random.Random(seed)
    print(f"\nextrapolated: seed {seed}\n", flush=True)
    cells: list[Cell] = []
    for shape in SHAPES:
        if not shape.name.startswith(tuple(models or [""])):
            continue
        for number in range(2):
            folder = root / f"wide-{len(cells)}-{number}"
            model = make_model(shape, folder / "model")
            longest = draw.choice((320, 512, 768))
            train, valid = make_data(folder / "data", draw, samples=8, longest=longest)
            settings = {
                **_TRAINED,
                "batch_size": draw.choice((1, 2, 4)),
                "gradient_checkpointing": draw.random() < 0.3,
                "loss_chunk": draw.choice((0, LOSS_CHUNK)),
            }
            spec = JobSpec(
                str(model), str(train), str(valid), str(folder / "out"), settings=settings
            )
            cells.append(grid.run(shape.name, spec, folder, speeds=False))
            _say(cells[-1], 1.0)
            shutil.rmtree(folder)
    _summarise(cells)


def _budgeted(spec: JobSpec, share: float, least: int, ample: PreflightRun) -> JobSpec:
    """The job with a budget between what it needs and what it likes (see BUDGETS)."""
    assert ample.plan is not None
    # On a machine too slow to measure in time it is predicted.
    best = ample.plan.measured_peak or ample.plan.predicted_peak
    least = min(least, best)  # where nothing was run, the leanest is only estimated
    mlx = int((least + share * (best - least)) * (1 + Degree.EXTRAPOLATED.margin))
    budget = int((ample.outside + mlx) / 0.95)  # the allocator's cache takes 5 %
    return dataclasses.replace(spec, output=f"{spec.output}-{share}", memory_budget=budget)


def _say(cell: Cell, share: float) -> None:
    head = f"{cell.model:<22} at {share:<4}"
    if cell.plan is None or cell.trained is None:
        verdict = "rightly" if cell.refused_rightly else "WRONGLY"
        print(
            f"{head} refused at {cell.budget / 1e6:.0f} MB, {verdict}: the leanest setup takes "
            f"{cell.least / 1e6:.0f} MB of the {cell.room / 1e6:.0f} MB for arrays",
            flush=True,
        )
        return
    trained = cell.trained
    measured = f"measured {cell.measured_error:+.1%}" if cell.plan.measured_peak else "not measured"
    print(
        f"{head} {grid.said(cell.plan.settings)}: "
        f"peak {trained.peak / 1e6:.0f} MB, {cell.before} {cell.predicted_error:+.1%}, "
        f"{measured}; footprint {trained.footprint / 1e6:.0f} of "
        f"{cell.budget / 1e6:.0f} MB, {'finished' if trained.finished else 'FAILED'}"
        + f"; speed {cell.speed_share:.0%} of the best ({cell.fastest})"
        * bool(cell.fastest),
        flush=True,
    )


def _summarise(cells: Sequence[Cell]) -> None:
    done = [cell for cell in cells if cell.plan is not None and cell.trained is not None]
    refused = [cell for cell in cells if cell.plan is None]
    rightly = sum(cell.refused_rightly for cell in refused)
    print(f"\n{len(done)} trained, {len(refused)} refused, {rightly} of them rightly (goal all)")
    if not done:
        return
    predicted = [cell.predicted_error for cell in done if cell.before == "extrapolated"]
    measured = [cell.measured_error for cell in done if cell.plan and cell.plan.measured_peak]
    inside = [
        cell.trained.finished and cell.trained.footprint <= cell.budget
        for cell in done
        if cell.trained
    ]
    if predicted:
        median = statistics.median(map(abs, predicted))
        worst = max(map(abs, predicted))
        print(f"  extrapolated: median {median:.1%} (goal 3 %), worst {worst:.1%} (goal 8 %),")
        print(f"    most under {min(predicted):+.1%} (goal −4 %), {len(predicted)} cells")
    if measured:
        print(f"  measured: worst {max(map(abs, measured)):.1%} (goal 3 %), {len(measured)} cells")
    if any(cell.budget for cell in done):
        print(f"  ended inside the budget: {sum(inside)} of {len(inside)} (goal all)")
    if any(cell.fastest for cell in done):
        print(f"  speed against the best: worst {min(c.speed_share for c in done):.0%} (goal 95 %)")


def _demo(model: Path, root: Path) -> None:
    if not (model / "config.json").exists():
        print(f"\ndemo: not run, no model in {model}: `safetrain models add demo` makes one")
        return
    train, valid = SAMPLE / "farense_train.jsonl", SAMPLE / "farense_valid.jsonl"
    spec = JobSpec(str(model), str(train), str(valid), str(root / "out"))
    for which, goal in (("cold", 60), ("warm", 5)):
        began = time.monotonic()
        preflight_run = grid.preflight(spec, root)
        assert preflight_run.plan is not None and preflight_run.plan.measured_peak
        print(f"\ndemo, {which}: {time.monotonic() - began:.1f} s (goal {goal} s)", flush=True)


def _write(path: Path, seed: int, cells: Sequence[Cell]) -> None:
    rows = [
        {
            "model": cell.model,
            "budget": cell.budget,
            "before": cell.before if cell.plan else None,
            "predicted_error": cell.predicted_error if cell.plan else None,
            "measured_error": cell.measured_error if cell.plan else None,
            "footprint": cell.trained.footprint if cell.trained else None,
            "finished": cell.trained.finished if cell.trained else None,
            "speed_share": cell.speed_share,
            "least_peak": cell.least or None,
            "room": cell.room or None,
        }
        for cell in cells
    ]
    path.write_text(json.dumps({"seed": seed, "cells": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How fast the machines of a training are, each and together, measured before its first step."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import mlx.core as mx

from safetrain_shared.findings import Finding, Status
from safetraind.rank_speed import speedup_of_machines
from safetraind.worker.training.batches import Batch, Batches
from safetraind.worker.training.ranks import Ranks
from safetraind.worker.training.step import Stepper


def measured_steps(ranks: Ranks, stepper: Stepper, batches: Batches) -> list[list[float]]:
    """Return of each rank the seconds of its share of the first step and, by that, those of the
    whole step on its machine alone.

    A gradient is computed and dropped, so that nothing changes. Each rank must call it at the same
    point. Raises RankLost.
    """
    share = batches.window(0, 0)
    seconds = _seconds(stepper, share) if share else 0.0
    whole = _tokens(batches.whole_window(0, 0)) / max(1, _tokens(share))
    return ranks.gathered([seconds, seconds * whole])


def verdict(
    steps: Sequence[Sequence[float]], machines: Sequence[str], sum_seconds: float, sent: int
) -> Finding:
    """Return the speed-up to expect, or the finding that blocks where the fastest machine alone is
    as fast.

    `steps`: of `measured_steps`. `machines`: the names of the others, by their ranks from 1 on.
    `sent`: bytes of the vector that is summed. Pure but for this machine's own name.
    """
    names = [os.uname().nodename, *machines]
    shares, alone = [step[0] for step in steps], [step[1] for step in steps]
    working = [rank for rank, share in enumerate(shares) if share]
    fast, slow = min(working, key=alone.__getitem__), max(working, key=shares.__getitem__)
    factor = speedup_of_machines(shares, [alone[rank] for rank in working], sum_seconds)
    args: dict[str, str | int | float] = {
        "fastest": names[fast],
        "alone": alone[fast],
        "slowest": names[slow],
        "share": shares[slow],
        "bytes": sent,
        "seconds": sum_seconds,
        "speedup": factor,
    }
    if factor <= 1:
        return Finding("train.machines_too_slow", Status.FAILED, True, args)
    return Finding("train.machines_speedup", args=args)


def _seconds(stepper: Stepper, window: Sequence[Batch]) -> float:
    """Return the seconds of a gradient. The first one compiles."""
    for _ in range(2):
        began = time.perf_counter()
        mx.eval(stepper.gradients(window, 0))
    return time.perf_counter() - began


def _tokens(window: Sequence[Batch]) -> int:
    """Return the tokens that a window computes, padding included."""
    return sum(batch.inputs.size for batch in window)

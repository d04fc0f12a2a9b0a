"""The peak memory of a computation, counted so that it is the same each time."""

from __future__ import annotations

import gc
from collections.abc import Callable

import mlx.core as mx


def peak(act: Callable[[], object]) -> int:
    """Return MLX's peak while `act` runs, above what was held before, in bytes.

    MLX allocates ahead of the thread that computes and frees, by as much as that thread is late.
    Above its limit it waits for it, so a limit of nothing keeps the two together.
    """
    gc.collect()  # so that nothing older is freed meanwhile,
    mx.synchronize()  # nor anything that is still computed
    mx.clear_cache()
    before = mx.get_active_memory()
    limit = mx.set_memory_limit(1)
    mx.reset_peak_memory()
    try:
        act()
        mx.synchronize()
    finally:
        mx.set_memory_limit(limit)
    return mx.get_peak_memory() - before

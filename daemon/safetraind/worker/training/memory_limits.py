"""The memory of the training process: the limits that the plan sets, and its actual use."""

from __future__ import annotations

import os

import mlx.core as mx

from safetrain_shared.jobs import Plan
from safetraind.host import footprint


def set_limits(plan: Plan) -> None:
    """Apply the plan's limits on memory, allocator cache and wired memory; zero leaves one alone.

    The cache counts neither in MLX's peak nor in the memory limit until it has grown, and on Metal
    it may grow to nearly all of the machine unless it is bounded.
    """
    if plan.memory_limit:
        mx.set_memory_limit(plan.memory_limit)
    if plan.cache_limit:
        mx.set_cache_limit(plan.cache_limit)
    if plan.wired_limit and mx.metal.is_available():
        mx.set_wired_limit(plan.wired_limit)


def begin_measuring() -> None:
    """Start measuring the peak. Loading a model needs more memory than keeping it."""
    mx.clear_cache()
    mx.reset_peak_memory()


def peak() -> int:
    """Return the peak of MLX's arrays in bytes, without the allocator's cache."""
    return mx.get_peak_memory()


def own_footprint() -> int:
    """Return the footprint of this process in bytes."""
    return footprint(os.getpid())

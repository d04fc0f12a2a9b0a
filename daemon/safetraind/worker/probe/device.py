"""The device that MLX computes on here, tried by a real operation, and what it says of itself."""

from __future__ import annotations

import time
from typing import Any

import mlx.core as mx

_SIDE = 512
# float32 products a second below which no fast BLAS can be at work: reference BLAS reaches 3e9.
_SLOW_FLOPS = 1.5e10


def device_facts() -> dict[str, Any]:
    """The facts of `preflight.facts.Device`: sizes in bytes, 0 where the device tells none."""
    try:
        return {"kind": kind(), "works": True, **_told(), "fast_float32": _is_fast(), "reason": ""}
    except (RuntimeError, ValueError) as error:
        return {"kind": kind(), "works": False, "reason": str(error)[:200]}


def kind() -> str:
    """`metal`, `cuda` or `cpu`."""
    if mx.default_device().type == mx.DeviceType.cpu:
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def _told() -> dict[str, Any]:
    told = mx.device_info()
    return {
        "name": str(told.get("device_name", "")),
        "memory": int(told.get("memory_size", 0)),
        "working_set": int(told.get("max_recommended_working_set_size", 0)),
        "largest_buffer": int(told.get("max_buffer_length", 0)),
        "resources": int(told.get("resource_limit", 0)),
    }


def _is_fast() -> bool:
    """Multiplies matrices of ones, checks the product, and takes the time of the second try."""
    ones = mx.ones((_SIDE, _SIDE))
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        product = (ones @ ones).sum().item()
        seconds = time.perf_counter() - began
        if product != float(_SIDE) ** 3:
            raise RuntimeError(f"a product of matrices came out as {product}")
    return 2 * _SIDE**3 / max(seconds, 1e-9) > _SLOW_FLOPS

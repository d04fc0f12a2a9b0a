"""The device that MLX computes on here, tried by a real operation, and its own facts."""

from __future__ import annotations

import time

import mlx.core as mx

from safetraind.worker_messages.probe_messages import Device

_SIDE = 512
# float32 products a second below which no fast BLAS can be at work: reference BLAS reaches 3e9.
_SLOW_FLOPS = 1.5e10


def device_facts() -> Device:
    """Return the device's own facts, and whether an operation on it came out right."""
    try:
        found = mx.device_info()
        return Device(
            kind(),
            name=str(found.get("device_name", "")),
            memory=int(found.get("memory_size", 0)),
            working_set=int(found.get("max_recommended_working_set_size", 0)),
            largest_buffer=int(found.get("max_buffer_length", 0)),
            resources=int(found.get("resource_limit", 0)),
            fast_float32=_is_fast(),
        )
    except (RuntimeError, ValueError) as error:
        return Device(kind(), works=False, reason=str(error)[:200])


def kind() -> str:
    """Return the kind of the device: `metal`, `cuda` or `cpu`."""
    if mx.default_device().type == mx.DeviceType.cpu:
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def _is_fast() -> bool:
    """Multiply matrices of ones and check the product. Return whether the second try was fast."""
    ones = mx.ones((_SIDE, _SIDE))
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        product = (ones @ ones).sum().item()
        seconds = time.perf_counter() - began
        if product != float(_SIDE) ** 3:
            raise RuntimeError(f"a product of matrices came out as {product}")
    return 2 * _SIDE**3 / max(seconds, 1e-9) > _SLOW_FLOPS

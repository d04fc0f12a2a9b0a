"""Which layers keep attention scores for the backward pass: decided by device, mask and head size.

From mlx 0.32.4 on Metal has a fused backward pass (mlx #4563). It takes a causal mask, no array,
and some head sizes only. Packed rows have an array as their mask, and so have windows that are
shorter than the sequence. The CPU has no fused backward pass.
"""

from __future__ import annotations

from safetraind.models.model_config import ModelShape

# Head sizes of the fused backward pass (mlx 0.32.4, Metal).
_FUSED_HEAD_SIZES = frozenset({64, 72, 80, 96, 128, 192, 256})


def scored_share(shape: ModelShape, device: str, width: int, *, packed: bool) -> float:
    """The share of layers that keep scores for rows of `width` tokens, 0 to 1.

    `device`: cpu, metal or cuda.
    """
    fits = shape.head_dim in _FUSED_HEAD_SIZES and not shape.soft_capped
    if device == "cpu" or packed or not fits:
        return 1.0
    return shape.windowed if shape.window < width else 0.0

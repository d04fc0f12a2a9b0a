"""The 4-bit matrices of a base, as MLX has them, in ggml's type Q4_1: the same values, not rounded.

Both store a code q of 4 bits for each weight and compute d·q + m, MLX with one d and m for 32, 64
or 128 weights of a row, Q4_1 for 32 (ggml-common.h, block_q4_1: d and m in float16, then 16 bytes,
each with code i in its low half and code i + 16 in its high half). A group is so many blocks with
the same d and m, which lose nothing in float16 unless they are smaller than 6e-5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

Array = np.ndarray[Any, Any]
BLOCK = 32
"""Weights in a block of Q4_1."""
_BITS = 4


@dataclass(frozen=True, slots=True)
class FourBits:
    """A matrix in MLX's affine 4 bits: codes, eight in each uint32, and what each group has."""

    codes: mx.array
    scales: mx.array
    biases: mx.array

    def blocks(self) -> Array:
        """Return the rows as blocks of Q4_1: uint8 (rows, 20 for each 32 weights)."""
        packed = np.array(self.codes).view(np.uint8)
        codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(
            len(packed), -1, 2, BLOCK // 2
        )
        halves = codes[:, :, 0] | codes[:, :, 1] << 4
        repeated = codes.shape[1] // self.scales.shape[-1]
        heads = [self._bytes(each, repeated) for each in (self.scales, self.biases)]
        return np.concatenate([*heads, halves], axis=-1).reshape(len(packed), -1)

    def _bytes(self, values: mx.array, repeated: int) -> Array:
        """Return one float16 for each block, as two bytes: (rows, blocks, 2)."""
        halves = np.repeat(np.array(values.astype(mx.float16)), repeated, axis=-1)
        return halves[..., None].view(np.uint8)


def four_bit_matrices(model: nn.Module) -> dict[str, FourBits]:
    """Return the matrices of `model` in affine 4 bits, by the names of its weights.

    One under an adapter has the adapter's name in its own, and none once the adapter is fused.
    """
    return {
        f"{name}.weight": FourBits(layer["weight"], layer["scales"], layer["biases"])
        for name, layer in model.named_modules()
        if isinstance(layer, nn.QuantizedLinear | nn.QuantizedEmbedding)
        and (layer.bits, layer.mode) == (_BITS, "affine")
    }


def has_four_bits(config: dict[str, Any]) -> bool:
    """Whether a model's config.json tells of matrices in affine 4 bits."""
    told = config.get("quantization") or {}
    kinds = [told, *(each for each in told.values() if isinstance(each, dict))]
    return any((k.get("bits"), k.get("mode", "affine")) == (_BITS, "affine") for k in kinds)

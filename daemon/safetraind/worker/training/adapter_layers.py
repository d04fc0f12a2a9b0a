"""Adapter layers that compute in the dtype of their input, with weights that stay float32.

mlx-lm's layers multiply a 16-bit input by float32 weights. MLX then makes a float32 copy of every
adapted input and keeps it for the backward pass, 7 to 20 % of the peak of a 16-bit model. Here the
small adapter weights are cast where they are used instead. The optimizer still sees float32 weights
and, through the cast, float32 gradients.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.lora import LoRALinear, LoRASwitchLinear


class _LoRALinear(LoRALinear):
    def __call__(self, x: mx.array) -> mx.array:
        low = self.dropout(x) @ self.lora_a.astype(x.dtype)
        return self.linear(x) + self.scale * (low @ self.lora_b.astype(x.dtype))


class _LoRASwitchLinear(LoRASwitchLinear):
    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        chosen: dict[str, Any] = {"rhs_indices": indices, "sorted_indices": sorted_indices}
        down, up = (w.astype(x.dtype).swapaxes(-1, -2) for w in (self.lora_a, self.lora_b))
        low = mx.gather_mm(self.dropout(x), down, **chosen)
        base = self.linear(x, indices, sorted_indices=sorted_indices)
        return base + self.scale * mx.gather_mm(low, up, **chosen)


class _DoRALinear(DoRALinear):
    def __call__(self, x: mx.array) -> mx.array:
        weight = self._dequantized_weight()
        low = self.dropout(x) @ self.lora_a.astype(x.dtype)
        out = x @ weight.T + self.scale * (low @ self.lora_b.astype(x.dtype))
        adapted = weight + (self.scale * self.lora_b.T) @ self.lora_a.T
        norm = mx.stop_gradient(mx.linalg.norm(adapted, axis=1))
        out = (self.m / norm).astype(x.dtype) * out
        return out + self.linear.bias if "bias" in self.linear else out


_IN_INPUT_DTYPE = {
    LoRALinear: _LoRALinear,
    LoRASwitchLinear: _LoRASwitchLinear,
    DoRALinear: _DoRALinear,
}


def compute_in_input_dtype(model: nn.Module) -> None:
    """Replace the class of every adapter layer of `model`; names and weights stay as they are.

    A layer of another kind, such as an adapted embedding, is left as mlx-lm made it.
    """
    for module in model.modules():
        if kind := _IN_INPUT_DTYPE.get(type(module)):
            module.__class__ = kind

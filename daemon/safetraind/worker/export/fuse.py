"""Fuses an adapter into the weights of its model, for programs without adapter support.

`mlx_lm.fuse` quantizes the fused matrices to the base's few bits again, which loses much of what
was learned (mlx-lm #654). Here they are computed in float32, rounded once, and stored in more bits.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import dequantize_model

BITS = (8, 16)
"""Bits of the fused matrices of a quantized model, in the order in which they are tried."""

_FLOATS = (mx.float32, mx.float16, mx.bfloat16)
_FLOAT_BITS = 16


def fuse(
    model: nn.Module, config: dict[str, Any], *, bits: int = 16, dequantize: bool = False
) -> dict[str, Any]:
    """Replace every adapter layer of `model` by one plain layer. Return the `config` for it.

    In a quantized model the fused matrices get `bits` (8: affine, in the base's groups; 16: not
    quantized), recorded in the configuration for each layer, as mlx-lm reads it; all others stay
    unchanged. With `dequantize` the whole model becomes 16 bits. The weights are lazy: they are
    computed when they are used.
    """
    quantization = config.get("quantization")
    own = dict(quantization or {})
    fused = []
    for name, layer in model.named_modules():
        if not hasattr(layer, "fuse"):
            continue
        plain = _fused(layer)
        if quantization and not dequantize and bits < _FLOAT_BITS:
            own[name] = {"group_size": _groups(quantization), "bits": bits, "mode": "affine"}
            plain = plain.to_quantized(**own[name])
        fused.append((name, plain))
    model.update_modules(tree_unflatten(fused))
    rest = {k: v for k, v in config.items() if k not in ("quantization", "quantization_config")}
    if quantization and dequantize:
        dequantize_model(model)
    elif quantization:
        return {**rest, "quantization": own, "quantization_config": own}
    return rest


def fused_bytes(model: nn.Module, *, bits: int = 16, dequantize: bool = False) -> int:
    """Return the approximate bytes of the weights of `model` once its adapter is fused."""
    total = 0
    for name, module in model.named_modules():
        if "scales" in module and hasattr(module, "bits"):
            raised = name.endswith((".linear", ".embedding"))
            wanted = _FLOAT_BITS if dequantize else max(module.bits, bits if raised else 0)
            weights = module.weight.nbytes * 8 // module.bits
            if wanted == _FLOAT_BITS:
                total += weights * module.scales.dtype.size
            else:
                total += weights * wanted // 8 + 2 * module.scales.nbytes
        else:
            leaves = (module[name] for name in module if name not in ("lora_a", "lora_b", "m"))
            total += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, mx.array))
    return total


def _fused(layer: nn.Module) -> nn.Module:
    """Return the fused layer, computed in float32 and rounded once to the base's own type."""
    base = layer.linear if "linear" in layer else layer.embedding
    arrays = dict(tree_flatten(base.parameters())).values()
    dtype = next(array.dtype for array in arrays if array.dtype in _FLOATS)
    base.set_dtype(mx.float32)
    plain: nn.Module = layer.fuse(dequantize=True)
    plain.set_dtype(dtype)
    return plain


def _groups(quantization: dict[str, Any]) -> int:
    """Return the group size; the affine mode has groups of 32, 64 and 128."""
    size = int(quantization.get("group_size", 64))
    return size if size in (32, 64, 128) else 32

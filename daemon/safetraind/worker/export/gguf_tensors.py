"""A model's weights under ggml's names, in ggml's order and types, and back again.

Names come from the package `gguf`, which llama.cpp's own converter uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import gguf
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from gguf import GGMLQuantizationType
from mlx.utils import tree_flatten

from safetrain_shared.gguf_types import GGUF_TYPES
from safetraind.worker.export.four_bits import FourBits
from safetraind.worker.export.gguf_families import Family, Shape

Array = np.ndarray[Any, Any]
TYPES = {name: GGMLQuantizationType[name.upper()] for name in GGUF_TYPES}
"""ggml's types for matrices, by their names."""
EIGHT_BITS, FOUR_BITS = "q8_0", "q4_1"

_SUFFIXES = (".weight", ".bias")
_WRAPPER = "language_model."  # of a text model within one that also sees


@dataclass(frozen=True, slots=True)
class Tensor:
    """A weight of a model and its place in a file.

    `name` is ggml's, `own` mlx-lm's. `heads`: its rows are those of as many heads, and reordered;
    0: they stay. `shift` is added to it. `own_bits`: the base's own 4 bits, which are stored.
    """

    name: str
    own: str
    heads: int
    shift: float
    type: GGMLQuantizationType
    own_bits: FourBits | None = None

    def to_file(self, weight: mx.array) -> Array:
        """Return the weight as it is stored: in ggml's order, and quantized to its type."""
        if self.own_bits is not None:
            return np.ascontiguousarray(self._ordered(self.own_bits.blocks()))
        rows = np.array(weight.astype(mx.float32)) + np.float32(self.shift)
        return np.ascontiguousarray(gguf.quantize(self._ordered(rows), self.type))

    def _ordered(self, rows: Array) -> Array:
        return _swap_halves(rows, self.heads, (2, -1)) if self.heads else rows

    def from_file(self, tensor: gguf.ReaderTensor) -> mx.array:
        """Return the tensor that `to_file` stored, in float32."""
        rows = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
        rows = rows.reshape([int(n) for n in reversed(tensor.shape)])
        if self.heads:
            rows = _swap_halves(rows, self.heads, (-1, 2))
        return mx.array(rows - np.float32(self.shift))


def tensors_of(
    model: nn.Module,
    family: Family,
    shape: Shape,
    stored: str,
    four_bits: Mapping[str, FourBits] = MappingProxyType({}),
) -> list[Tensor]:
    """Return the place of every weight of a model without quantized layers.

    `stored`: one of `TYPES`, for matrices; norms and biases are float32, as llama.cpp wants them.
    `four_bits`: of Q4_1, the matrices that keep the base's own bits; all others get 8.
    Raises KeyError for a weight that the family has no name for.
    """
    names = gguf.get_tensor_name_map(family.arch, shape.layers)
    weights: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    found = []
    for own, weight in weights.items():
        name = names.get_name(own.removeprefix(_WRAPPER), try_suffixes=_SUFFIXES)
        if name is None:
            raise KeyError(own)
        kept = four_bits.get(own) if stored == FOUR_BITS else None
        is_norm = "norm" in own.rpartition(".")[0].rpartition(".")[2]
        found.append(
            Tensor(
                name,
                own,
                heads=_reordered_heads(own, family, shape),
                shift=family.norm_shift if is_norm else 0.0,
                type=_type(weight, stored, kept),
                own_bits=kept,
            )
        )
    return found


def _reordered_heads(own: str, family: Family, shape: Shape) -> int:
    if not family.interleaved or shape.get("rope_traditional"):
        return 0
    counts = {"self_attn.q_proj": shape.heads, "self_attn.k_proj": shape.kv_heads}
    return next((n for layer, n in counts.items() if own.rpartition(".")[0].endswith(layer)), 0)


def _type(weight: mx.array, stored: str, kept: FourBits | None) -> GGMLQuantizationType:
    """Return float32 for vectors; for matrices the wanted type, or float16 where it has no room."""
    if weight.ndim == 1:
        return GGMLQuantizationType.F32
    wanted = TYPES[EIGHT_BITS if stored == FOUR_BITS and kept is None else stored]
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    return wanted if weight.shape[-1] % block == 0 else GGMLQuantizationType.F16


def _swap_halves(rows: Array, heads: int, split: tuple[int, int]) -> Array:
    """Reorder each head's rows: seen as a matrix of the shape `split`, it is transposed."""
    seen = rows.reshape(heads, *split, *rows.shape[1:])
    return seen.swapaxes(1, 2).reshape(rows.shape)

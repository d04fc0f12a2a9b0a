"""The way in which layers compute attention in training, by device, width, mask and head size.

Three ways: with a fused backward pass, which keeps no scores (Metal from mlx 0.32.4 on, mlx #4563);
in blocks of queries, which keeps none either and has the scores of one block at a time; whole, with
the scores kept for the backward pass. Packed rows have an array as their mask, and so have windows
that are shorter than the sequence; sinks count as one.
"""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.attention import attends_in_blocks, has_fused_backward
from safetraind.models.model_config import ModelShape


@dataclass(frozen=True, slots=True)
class Attention:
    """The share of layers that keep their scores, and the share that compute them in blocks, 0 to 1
    each. The rest is fused.
    """

    kept: float
    in_blocks: float


WHOLE = Attention(kept=1.0, in_blocks=0.0)
_IN_BLOCKS = Attention(kept=0.0, in_blocks=1.0)
_FUSED = Attention(kept=0.0, in_blocks=0.0)


def attention(shape: ModelShape, device: str, width: int, *, packed: bool) -> Attention:
    """Return the layers' attention in rows of `width` tokens. `device`: cpu, metal or cuda."""
    masked = packed or shape.sinks
    full = _of_layer(shape, device, width, masked=masked)
    windowed = _of_layer(shape, device, width, masked=masked or shape.window < width)
    share = shape.windowed
    return Attention(
        kept=(1 - share) * full.kept + share * windowed.kept,
        in_blocks=(1 - share) * full.in_blocks + share * windowed.in_blocks,
    )


def _of_layer(shape: ModelShape, device: str, width: int, *, masked: bool) -> Attention:
    """Return the attention of one kind of layer. A model that caps its scores computes them
    itself.
    """
    if shape.soft_capped:
        return WHOLE
    sizes = shape.head_dim, shape.head_dim
    if attends_in_blocks(width, masked=masked, sizes=sizes, fused=device == "metal"):
        return _IN_BLOCKS
    if device == "cpu" or not has_fused_backward(masked=masked, sizes=sizes):
        return WHOLE
    return _FUSED

"""A model's shape from its published sizes, without its files."""

from __future__ import annotations

from dataclasses import dataclass

from safetraind.models.model_config import Linear, ModelShape


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of a model's config.json: heads and head size of attention, `tied`: the head is
    the embedding, `window` and `windowed` as in `ModelShape`.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = True
    window: int = 0
    windowed: float = 0.0
    fused_qkv: bool = False


def shape_of_sizes(sizes: Sizes, bits: int) -> ModelShape:
    """Return the shape of a model quantized to `bits` with groups of 64, 0: 16-bit weights."""
    linears = _linears(sizes, bits)
    matrices = weights_in_matrices(sizes)
    norms = (2 * sizes.layers + 1) * sizes.hidden
    # Packed bits, and a 16-bit scale and bias for each group.
    bytes_each = bits / 8 + 4 / 64 if bits else 2.0
    return ModelShape(
        layers=sizes.layers,
        hidden=sizes.hidden,
        intermediate=sizes.intermediate,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        vocabulary=sizes.vocabulary,
        weight_bytes=round(bytes_each * matrices) + 2 * norms,
        float32_bytes=4 * (matrices + norms),
        item_bytes=2,
        linears=linears,
        window=sizes.window,
        windowed=sizes.windowed,
    )


def weights_in_matrices(sizes: Sizes) -> int:
    """Return the number of weights in the layers' matrices, the embedding and the head."""
    matrices = sizes.layers * sum(m.inputs * m.outputs for m in _linears(sizes, 0))
    return matrices + (2 - sizes.tied) * sizes.vocabulary * sizes.hidden


def _linears(sizes: Sizes, bits: int) -> tuple[Linear, ...]:
    hidden, wide = sizes.hidden, sizes.intermediate
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    if sizes.fused_qkv:
        into: tuple[tuple[str, int, int], ...] = (
            ("self_attn.qkv_proj", hidden, queries + 2 * keys),
        )
        mlp: tuple[tuple[str, int, int], ...] = (("mlp.gate_up_proj", hidden, 2 * wide),)
    else:
        into = (
            ("self_attn.q_proj", hidden, queries),
            ("self_attn.k_proj", hidden, keys),
            ("self_attn.v_proj", hidden, keys),
        )
        mlp = (("mlp.gate_proj", hidden, wide), ("mlp.up_proj", hidden, wide))
    out = (("self_attn.o_proj", queries, hidden), ("mlp.down_proj", wide, hidden))
    return tuple(Linear(name, a, b, bits) for name, a, b in (*into, *mlp, *out))

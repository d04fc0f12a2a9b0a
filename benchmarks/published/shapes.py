"""Shapes of the models that published peaks are of, from their configurations on the hub."""

from __future__ import annotations

from dataclasses import dataclass

from safetraind.models.model_config import Linear, ModelShape


@dataclass(frozen=True, slots=True)
class Sizes:
    """A model's numbers: heads and head size of attention, `tied`: the head is the embedding."""

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


SIZES = {
    "qwen3-8b": Sizes(36, 4096, 12288, 32, 8, 128, 151936, tied=False),
    "qwen3-4b": Sizes(36, 2560, 9728, 32, 8, 128, 151936),
    "qwen3-0.6b": Sizes(28, 1024, 3072, 16, 8, 128, 151936),
    "qwen2.5-7b": Sizes(28, 3584, 18944, 28, 4, 128, 152064, tied=False),
    "qwen2.5-3b": Sizes(36, 2048, 11008, 16, 2, 128, 151936),
    "qwen2.5-1.5b": Sizes(28, 1536, 8960, 12, 2, 128, 151936),
    "llama-3.2-1b": Sizes(16, 2048, 8192, 32, 8, 64, 128256),
    "llama-3-8b": Sizes(32, 4096, 14336, 32, 8, 128, 128256, tied=False),
    "mistral-7b-v0.1": Sizes(32, 4096, 14336, 32, 8, 128, 32000, tied=False),
    "mistral-7b-v0.3": Sizes(32, 4096, 14336, 32, 8, 128, 32768, tied=False),
    "phi-3.5-mini": Sizes(32, 3072, 8192, 32, 32, 96, 32064, tied=False, fused_qkv=True),
    "gemma-3-1b": Sizes(26, 1152, 6912, 4, 1, 256, 262144, window=512, windowed=5 / 6),
    "gemma-3-4b": Sizes(34, 2560, 10240, 8, 4, 256, 262208, window=1024, windowed=5 / 6),
}


def model_shape(name: str, bits: int) -> ModelShape:
    """The shape of a model quantized to `bits` with groups of 64, 0: 16-bit weights."""
    sizes = SIZES[name]
    linears = _linears(sizes, bits)
    matrices = sizes.layers * sum(m.inputs * m.outputs for m in linears)
    matrices += (2 - sizes.tied) * sizes.vocabulary * sizes.hidden
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


def _linears(sizes: Sizes, bits: int) -> tuple[Linear, ...]:
    hidden, wide = sizes.hidden, sizes.intermediate
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    if sizes.fused_qkv:
        into = (("self_attn.qkv_proj", hidden, queries + 2 * keys),)
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

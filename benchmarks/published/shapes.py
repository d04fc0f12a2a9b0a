"""Shapes of the models that published peaks are of, from their configurations on the hub."""

from __future__ import annotations

from safetraind.models.model_config import ModelShape
from safetraind.models.sizes import Sizes, shape_of_sizes

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
    return shape_of_sizes(SIZES[name], bits)

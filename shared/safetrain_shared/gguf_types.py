"""The types in which the matrices of an exported GGUF file can be stored."""

from __future__ import annotations

GGUF_TYPES = ("f16", "q8_0", "q4_1")
"""16 bits; 8 bits, with a 16-bit scale to 32 weights; the 4 bits of a base that has 4, unchanged,
and 8 where the adapter was fused. The first is the default."""

"""The model families that can be written as GGUF, and the differences to llama.cpp's computation.

A family maps mlx-lm's architecture to the one of llama.cpp. llama.cpp fixes some of what mlx-lm
reads from config.json (such as which layers have no positions); a model that differs there is
refused. Sources: the architectures in llama.cpp's src/models, and mlx_lm/models of mlx-lm 0.32.

What is not covered: YaRN, LongRoPE and dynamic RoPE scaling, biases in llama and qwen3, mixtures of
experts, vision towers.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from gguf import MODEL_ARCH
from mlx_lm.utils import _get_classes

from safetrain_shared.errors import InvalidInput
from safetraind.worker.config_keys import scales_nothing

_GEMMA3_LOCAL_BASE = 10_000.0
_GEMMA3_PATTERN = 6
_GEMMA2_27B_LAYERS, _GEMMA3_27B_LAYERS = 46, 62
_NO_POSITIONS_EVERY = 4


@dataclass(frozen=True, slots=True)
class Family:
    """The conversion of an architecture of mlx-lm to one of llama.cpp.

    `interleaved`: llama.cpp rotates neighbouring rows of queries and keys, and mlx-lm rows half a
    head apart. `norm_shift` is added to the norms: Gemma's scale by 1 + weight. `differs` names a
    key of the configuration with which the two compute different things.
    """

    arch: MODEL_ARCH
    interleaved: bool = False
    norm_shift: float = 0.0
    differs: Callable[[Shape], str] = lambda _shape: ""


@dataclass(frozen=True)
class Shape:
    """A text model's arguments as mlx-lm reads them, with its defaults, and its configuration."""

    arguments: Any
    config: Mapping[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument; one that mlx-lm does not know comes from the configuration."""
        found = getattr(self.arguments, name, None)
        return self.config.get(name, default) if found is None else found

    @property
    def head_dim(self) -> int:
        """The size of a head."""
        return int(self.get("head_dim") or self.get("hidden_size") // self.heads)

    @property
    def heads(self) -> int:
        """The number of query heads."""
        return int(self.get("num_attention_heads"))

    @property
    def kv_heads(self) -> int:
        """The number of key-value heads."""
        return int(self.get("num_key_value_heads") or self.heads)

    @property
    def layers(self) -> int:
        """The number of layers."""
        return int(self.get("num_hidden_layers"))

    @property
    def rope_scaling(self) -> Mapping[str, Any]:
        """The scaling of positions; empty where there is none."""
        scaling = self.get("rope_scaling") or {}
        return {} if scales_nothing(scaling) else scaling

    @property
    def rope_kind(self) -> str:
        """The kind of that scaling."""
        return str(self.rope_scaling.get("rope_type") or self.rope_scaling.get("type") or "")


def _llama(shape: Shape) -> str:
    if "sliding_attention" in (shape.get("layer_types") or ()):
        return "layer_types"
    return _first(shape, "attention_bias", "mlp_bias")


def _qwen2(shape: Shape) -> str:
    return _first(shape, "use_sliding_window")


def _qwen3(shape: Shape) -> str:
    return _first(shape, "attention_bias", "use_sliding_window")


def _gemma2(shape: Shape) -> str:
    return _scale_differs(shape, _GEMMA2_27B_LAYERS)


def _gemma3(shape: Shape) -> str:
    if shape.get("rope_local_base_freq") != _GEMMA3_LOCAL_BASE:
        return "rope_local_base_freq"
    if shape.get("sliding_window_pattern") != _GEMMA3_PATTERN:
        return "sliding_window_pattern"
    return _scale_differs(shape, _GEMMA3_27B_LAYERS)


def _smollm3(shape: Shape) -> str:
    expected = [int((n + 1) % _NO_POSITIONS_EVERY != 0) for n in range(shape.layers)]
    if list(shape.get("no_rope_layers")) != expected:
        return "no_rope_layers"
    return _first(shape, "attention_bias", "mlp_bias")


def _scale_differs(shape: Shape, largest: int) -> str:
    """Return the key that makes the scale of the scores differ, else empty: a head's size, and in
    the largest model hidden / heads.
    """
    scale = shape.head_dim
    if shape.layers == largest:
        scale = shape.get("hidden_size") // shape.heads
    return "" if shape.get("query_pre_attn_scalar") == scale else "query_pre_attn_scalar"


def _first(shape: Shape, *names: str) -> str:
    return next((name for name in names if shape.get(name)), "")


FAMILIES: Mapping[str, Family] = {
    "llama": Family(MODEL_ARCH.LLAMA, interleaved=True, differs=_llama),
    "mistral": Family(MODEL_ARCH.LLAMA, interleaved=True, differs=_llama),
    "qwen2": Family(MODEL_ARCH.QWEN2, differs=_qwen2),
    "qwen3": Family(MODEL_ARCH.QWEN3, differs=_qwen3),
    "gemma2": Family(MODEL_ARCH.GEMMA2, norm_shift=1.0, differs=_gemma2),
    "gemma3": Family(MODEL_ARCH.GEMMA3, norm_shift=1.0, differs=_gemma3),
    "gemma3_text": Family(MODEL_ARCH.GEMMA3, norm_shift=1.0, differs=_gemma3),
    "phi3": Family(MODEL_ARCH.PHI3),
    "smollm3": Family(MODEL_ARCH.SMOLLM3, interleaved=True, differs=_smollm3),
}
_SCALINGS = ("", "linear", "llama3")  # the last in llama's architecture alone


def family_of(config: Mapping[str, Any]) -> tuple[Family, Shape]:
    """Return the family of a model and its shape.

    Raises InvalidInput, with the reason, for a model that llama.cpp would not compute alike.
    """
    kind = str(config.get("model_type", "?"))
    family = FAMILIES.get(kind)
    if family is None:
        raise _refused(kind)
    shape = _shape(config)
    scaled = shape.rope_kind
    if scaled not in _SCALINGS or (scaled == "llama3" and family.arch is not MODEL_ARCH.LLAMA):
        raise _refused(f"{kind} + rope_scaling {scaled}")
    if found := family.differs(shape):
        raise _refused(f"{kind} + {found}")
    return family, shape


def add_hyperparameters(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Add the configuration's values that llama.cpp reads, under its names."""
    rotated = int(shape.head_dim * shape.get("partial_rotary_factor", 1.0))
    writer.add_context_length(int(shape.get("max_position_embeddings", 2048)))
    writer.add_embedding_length(shape.get("hidden_size"))
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.get("intermediate_size"))
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_vocab_size(shape.get("vocab_size"))
    writer.add_layer_norm_rms_eps(shape.get("rms_norm_eps"))
    writer.add_rope_dimension_count(rotated)
    writer.add_rope_freq_base(float(shape.get("rope_theta")))
    if shape.rope_kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(shape.rope_scaling["factor"]))
    if writer.arch in ("gemma2", "gemma3"):
        writer.add_sliding_window(int(shape.get("sliding_window", 4096)))
    if writer.arch == "gemma2":
        writer.add_attn_logit_softcapping(shape.get("attn_logit_softcapping"))
        writer.add_final_logit_softcapping(shape.get("final_logit_softcapping"))


def rope_factors(shape: Shape) -> np.ndarray[Any, Any] | None:
    """Return Llama 3.1's divisors of the frequencies, float32 (head / 2); None for others.

    Source: the reference code of Llama 3.1, `apply_scaling`.
    """
    if shape.rope_kind != "llama3":
        return None
    scaling, dims = shape.rope_scaling, shape.head_dim
    factor, trained = scaling["factor"], scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    factors = []
    for n in range(0, dims, 2):
        wavelength = 2 * math.pi * shape.get("rope_theta") ** (n / dims)
        smooth = min(1.0, max(0.0, (trained / wavelength - low) / (high - low)))
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


def _shape(config: Mapping[str, Any]) -> Shape:
    """Read a configuration as mlx-lm does, also that of a text model within another."""
    _, arguments = _get_classes(dict(config))
    whole = arguments.from_dict(dict(config))
    text = getattr(whole, "text_config", None)
    if not text:
        return Shape(whole, config)
    inner = importlib.import_module(f"mlx_lm.models.{config['model_type']}_text")
    return Shape(inner.ModelArgs.from_dict(text), {**config, **text})


def _refused(found: str) -> InvalidInput:
    known = ", ".join(sorted(FAMILIES))
    return InvalidInput("export.gguf_architecture", architecture=found, known=known)

"""Reads a model's facts without loading it: from config.json and the safetensors headers.

The safetensors format: eight bytes of header length, little endian, then a JSON object of
name → {"dtype", "shape", "data_offsets"}.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetrain_shared.findings import Finding
from safetraind.models.weight_files import missing_weights
from safetraind.storage.durable import read_file

_MAX_HEADER = 100 << 20
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)\.weight$")
_LICENCE = re.compile(r"^license:\s*['\"]?([^'\"\n]+)", re.M)
# Alternative names of the same number in configurations, the usual name first.
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "hidden_dim", "model_dim")
_INTERMEDIATE = ("intermediate_size", "n_inner", "mlp_hidden_size", "ffn_hidden_size")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = ("num_key_value_heads", "n_kv_heads", "num_kv_heads")
_VOCABULARY = ("vocab_size", "num_vocab")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
_LEARNED_POSITIONS = frozenset({"gpt2", "gpt_bigcode"})  # a vector for each, and none for more
# mlx-lm's kinds of rope scaling that reach beyond the positions a model was made with (its
# `rope_utils`).
_SCALINGS = ("linear", "dynamic", "yarn", "deepseek_yarn", "telechat3-yarn", "llama3", "longrope")
_ROUTED = ("num_experts_per_tok", "moe_topk", "moe_top_k", "top_k_experts", "experts_per_token")
_EXPERT = re.compile(r"switch|expert")
_LARGEST = 1 << 40
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "U8": 1, "I8": 1}
# Architectures that mlx-lm 0.32 loads with another's module (mlx_lm.utils.MODEL_REMAPPING).
_SERVED_BY = {
    "mistral": "llama",
    "llava": "mistral3",
    "phi-msft": "phixtral",
    "falcon_mamba": "mamba",
    "qwen2_5_vl": "qwen2_vl",
    "kimi_k2": "deepseek_v3",
    "minimax_m2": "minimax",
    "iquestcoder": "llama",
    "xverse": "llama",
}


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear map of one layer. `name`: inside the layer; `bits`: 0 if it is not quantized.
    `experts`: how many of them there are, each of which gets an adapter of its own.
    """

    name: str
    inputs: int
    outputs: int
    bits: int = 0
    experts: int = 1


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers of a model that its memory depends on.

    `weight_bytes`: as stored; `float32_bytes`: with every weight as float32. `item_bytes`: size of
    the floating-point type that the model computes in, 4 or 2. `heads` is 0 without attention.
    `window`: tokens of the sliding window, which `windowed`, a share of the layers, have.
    `soft_capped`: attention scores are capped, which no fused kernel supports. `sinks`: attention
    has sinks, which no fused backward pass supports. `routed`: experts that each token passes
    through, 0 without experts, and `expert_width` their intermediate size.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    weight_bytes: int
    float32_bytes: int
    item_bytes: int
    linears: tuple[Linear, ...]
    window: int = 0
    windowed: float = 0.0
    soft_capped: bool = False
    sinks: bool = False
    routed: int = 0
    expert_width: int = 0

    def adapter_parameters(self, rank: int, layers: int, targets: tuple[str, ...] = ()) -> int:
        """Return the number of LoRA parameters of `rank` on the top `layers` layers (0: all)."""
        chosen = [m for m in self.linears if not targets or _targeted(m.name, targets)]
        count = min(layers or self.layers, self.layers)
        return count * sum(rank * m.experts * (m.inputs + m.outputs) for m in chosen)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts of a model, from its folder or from the hub.

    `path` is empty while the model is not on this machine; `download` is then the bytes to
    download, 0 if unknown, and `cause` why the hub could not be asked. `missing`: files that the
    model names and that do not exist. `known`: mlx-lm has the architecture. `bits`: of the
    quantization, 0 without. `positions`: the longest sequence that it was made for, rope scaling
    included, 0 if it does not say; `learned_positions`: it has a vector for each and none for more.
    `reason`: why the folder cannot be read. `own_code`: it contains Python
    code.
    """

    name: str
    path: str = ""
    missing: tuple[str, ...] = ()
    reason: str = ""
    bytes: int = 0
    download: int = 0
    model_type: str = ""
    known: bool = False
    bits: int = 0
    licence: str = ""
    own_code: bool = False
    shape: ModelShape | None = None
    fingerprint: str = ""
    cause: Finding | None = None
    positions: int = 0
    learned_positions: bool = False


def read_model(name: str, folder: Path | None) -> ModelFacts:
    """Return the facts of the model `name` in `folder`. Never raises."""
    if folder is None:
        return ModelFacts(name)
    try:
        config = _object(json.loads(read_file(folder / "config.json").decode()), "config.json")
        missing = tuple(_missing(folder))
        tensors = {} if missing else _tensors(folder)
        return _facts(name, folder, config, missing, tensors)
    except FileNotFoundError as error:
        return ModelFacts(name, str(folder), missing=(Path(error.filename or "").name,))
    except _Malformed as error:
        return ModelFacts(name, str(folder), reason=str(error)[:200])
    except Exception as error:  # any error on a foreign folder becomes a finding
        return ModelFacts(name, str(folder), reason=f"{type(error).__name__}: {error}"[:200])


class _Malformed(Exception):
    """A file of the model has an impossible value, which the text names."""


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Malformed(f"{name}: {_shown(value)}")
    return value


def _number(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """Return the integer under the first of `names` that is there, else 0. Raises _Malformed."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int | float):
            if not 0 < value <= _LARGEST or value != int(value):
                raise _Malformed(f"{name}: {value}")
            return int(value)
        if value is not None and not isinstance(value, list):  # a list has a number for each layer
            raise _Malformed(f"{name}: {_shown(value)}")
    return 0


def _shown(value: Any) -> str:
    return ascii(value)[:60] if isinstance(value, str) else type(value).__name__


def _facts(
    name: str, folder: Path, config: dict[str, Any], missing: tuple[str, ...], tensors: _Tensors
) -> ModelFacts:
    text = {**config, **_object(config.get("text_config") or {}, "text_config")}
    bits = _bits(config)
    files = sorted(folder.glob("*.safetensors"))
    sizes = [file.stat().st_size for file in files]
    kind = str(config["model_type"])
    return ModelFacts(
        name=name,
        path=str(folder),
        missing=missing,
        bytes=sum(sizes),
        model_type=kind,
        known=_is_known(kind),
        bits=bits,
        licence=_licence(folder, config),
        own_code="auto_map" in config or "model_file" in config or any(folder.glob("*.py")),
        shape=_shape(text, tensors, bits) if tensors else None,
        fingerprint=_fingerprint(folder, files),
        positions=_positions(text),
        learned_positions=kind in _LEARNED_POSITIONS,
    )


def _positions(text: Mapping[str, Any]) -> int:
    """Return the longest sequence that the model was made for, 0 if the configuration is silent.

    A scaling multiplies the length before it, which some configurations give beside the scaled one.
    """
    positions = _number(text, _POSITIONS)
    group = text.get("rope_scaling") or text.get("rope_parameters")
    if not isinstance(group, Mapping):
        return positions
    factor = group.get("factor")
    kind = group.get("rope_type") or group.get("type")
    if kind not in _SCALINGS or not isinstance(factor, int | float) or factor <= 1:
        return positions
    before = group.get("original_max_position_embeddings")
    before = before if isinstance(before, int) and before > 0 else positions
    return max(positions, int(before * factor))


def _bits(config: Mapping[str, Any]) -> int:
    for name in ("quantization", "quantization_config"):
        if config.get(name):
            return _number(_object(config[name], name), ("bits",))
    return 0


_Tensors = dict[str, tuple[str, tuple[int, ...]]]


def _missing(folder: Path) -> list[str]:
    """Return the missing weight and tokenizer files without which the model cannot be loaded."""
    missing = missing_weights(folder)
    tokenizers = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")
    if not any((folder / name).is_file() for name in tokenizers):
        missing.append("tokenizer.json")
    return missing


def _tensors(folder: Path) -> _Tensors:
    tensors: _Tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        size = file.stat().st_size
        with file.open("rb") as content:
            (length,) = struct.unpack("<Q", content.read(8))
            if length > min(_MAX_HEADER, size):
                raise _Malformed(f"{file.name} has no safetensors header")
            header = _object(json.loads(content.read(length)), file.name)
        ends = [value["data_offsets"][1] for key, value in header.items() if key != "__metadata__"]
        if ends and 8 + length + max(ends) > size:
            raise _Malformed(f"{file.name} is cut off")
        for key, value in header.items():
            if key != "__metadata__":
                tensors[key] = value["dtype"], tuple(value["shape"])
    return tensors


def _shape(text: Mapping[str, Any], tensors: _Tensors, bits: int) -> ModelShape | None:
    """Return the shape; None without a single number for hidden size, layers and vocabulary."""
    hidden, layers = _number(text, _HIDDEN), _number(text, _LAYERS)
    vocabulary, heads = _number(text, _VOCABULARY), _number(text, _HEADS)
    if not (hidden and layers and vocabulary):
        return None
    floats = [dtype for dtype, _ in tensors.values() if dtype in ("F32", "F16", "BF16")]
    linears = _linears(tensors, bits)
    expert_width = _expert_width(linears, hidden)
    return ModelShape(
        layers=layers,
        hidden=hidden,
        intermediate=_number(text, _INTERMEDIATE) or 4 * hidden,
        heads=heads,
        kv_heads=_number(text, _KV_HEADS) or heads,
        head_dim=_number(text, ("head_dim",)) or hidden // max(1, heads),
        vocabulary=vocabulary,
        weight_bytes=sum(_ITEM_BYTES.get(d, 1) * math.prod(s) for d, s in tensors.values()),
        float32_bytes=4 * sum(_weights(name, tensors, bits) for name in tensors),
        item_bytes=4 if "F32" in floats else 2,
        linears=linears,
        window=int(text.get("sliding_window") or 0),
        windowed=_windowed(text),
        soft_capped=bool(text.get("attn_logit_softcapping")),
        sinks=any("sink" in name for name in tensors),  # `sinks`, `attention_sink_bias`
        routed=_number(text, _ROUTED) if expert_width else 0,
        expert_width=expert_width,
    )


def _windowed(text: Mapping[str, Any]) -> float:
    """Return the share of layers with sliding-window attention, as mlx-lm 0.32 computes them.

    The configuration gives the type of each layer, or has full attention in every n-th one.
    """
    if not text.get("sliding_window"):
        return 0.0
    types = text.get("layer_types")
    if isinstance(types, list) and types:
        return types.count("sliding_attention") / len(types)
    pattern = text.get("sliding_window_pattern")
    if isinstance(pattern, int) and pattern > 0:
        return 1 - 1 / pattern
    return 0.0


def _weights(name: str, tensors: _Tensors, bits: int) -> int:
    """Return the number of weights in a tensor: unpacked if quantized, 0 for scales and biases."""
    dtype, shape = tensors[name]
    stem, _, kind = name.rpartition(".")
    if f"{stem}.scales" in tensors:
        if kind in ("scales", "biases"):
            return 0
        if kind == "weight" and dtype == "U32":
            return math.prod(shape) * 32 // (bits or 4)
    return math.prod(shape)


def _linears(tensors: _Tensors, bits: int) -> tuple[Linear, ...]:
    """Return the linear maps of the topmost layer, the first that gets an adapter.

    mlx-lm keeps the experts of a layer in one tensor (experts, outputs, inputs).
    """
    found: dict[int, list[Linear]] = {}
    for name, (dtype, shape) in tensors.items():
        place = _LAYER.search(name)
        if place is None or len(shape) not in (2, 3):
            continue
        if len(shape) == 3 and not _EXPERT.search(place[2]):
            continue  # a convolution
        *experts, outputs, columns = shape
        packed = dtype == "U32"
        inputs = columns * 32 // (bits or 4) if packed else columns
        linear = Linear(place[2], inputs, outputs, bits if packed else 0, *experts)
        found.setdefault(int(place[1]), []).append(linear)
    return tuple(found[max(found)]) if found else ()


def _expert_width(linears: tuple[Linear, ...], hidden: int) -> int:
    """Return the intermediate size of one expert of the layer, 0 without experts.

    Some checkpoints hold both ways into an expert as one map, or each expert's maps apart.
    """
    maps = [m for m in linears if _EXPERT.search(m.name) and "shared" not in m.name]
    return max((m.inputs for m in maps if m.outputs == hidden), default=0)


def _targeted(name: str, targets: tuple[str, ...]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _is_known(kind: str) -> bool:
    """Return whether mlx-lm has a module for the architecture. Importing it would import mlx."""
    found = find_spec("mlx_lm")
    places = list(found.submodule_search_locations or []) if found else []
    module = f"{_SERVED_BY.get(kind, kind)}.py"
    return any((Path(place) / "models" / module).is_file() for place in places)


def _licence(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the licence in config, model card or the licence file's first line; "" without."""
    if isinstance(config.get("license"), str):
        return str(config["license"])
    for name in ("README.md", "LICENSE", "LICENSE.txt"):
        try:
            head = read_file(folder / name).decode(errors="replace")[:4096]
        except OSError:
            continue
        if name != "README.md":
            return (head.strip().splitlines() or [""])[0].strip()
        if found := _LICENCE.search(head):
            return found[1].strip()
    return ""


def _fingerprint(folder: Path, files: list[Path]) -> str:
    """Return a text that changes with the folder's weight files, from their sizes and times."""
    parts = [f"{f.name}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files]
    return f"{folder.resolve()}|{'|'.join(parts)}"

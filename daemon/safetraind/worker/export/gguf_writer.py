"""Writes a fused model as one GGUF file, for llama.cpp and its relatives, and reads it back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType
from mlx.utils import tree_flatten
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import _get_classes, load_config

from safetrain_shared.errors import InvalidInput
from safetrain_shared.gguf_types import GGUF_TYPES
from safetraind.worker import config_keys
from safetraind.worker.export.four_bits import FourBits, has_four_bits
from safetraind.worker.export.gguf_families import (
    FAMILIES,
    add_hyperparameters,
    family_of,
    rope_factors,
)
from safetraind.worker.export.gguf_tensors import FOUR_BITS, tensors_of
from safetraind.worker.export.gguf_vocabulary import vocabulary
from safetraind.worker.loading import worth_dequantizing

_FILE_TYPES = {name: LlamaFileType[f"MOSTLY_{name.upper()}"] for name in GGUF_TYPES}
_FREQUENCIES = "rope_freqs.weight"


def check_takes(folder: Path, stored: str = GGUF_TYPES[0]) -> None:
    """Raise InvalidInput, with the reason, for a model that cannot be written faithfully.

    `stored`: the type of its matrices; 4 bits are written of a base alone that has them.

    Reads the folder's config.json and tokenizer alone, and loads nothing.
    """
    config = load_config(folder)
    if config.get("model_type") in FAMILIES:
        config.update(config_keys.read(config).overrides)
    if stored == FOUR_BITS and not has_four_bits(config):
        raise InvalidInput("export.gguf_no_four_bits", path=str(folder))
    _, shape = family_of(config)
    vocabulary(folder, int(shape.get("vocab_size")))


def write(
    file: Path,
    model: nn.Module,
    config: dict[str, Any],
    folder: Path,
    tokenizer: TokenizerWrapper,
    stored: str = GGUF_TYPES[0],
    four_bits: Mapping[str, FourBits] = MappingProxyType({}),
) -> None:
    """Write `model`, which must have no quantized layer, with the tokenizer in `folder`.

    `stored`: the type of its matrices, one of `gguf_tensors.TYPES`. `four_bits`: the matrices that
    the base had in 4 bits, by the names of its weights. One weight is in memory twice
    at a time. Raises what `family_of` and `vocabulary` do.
    """
    family, shape = family_of(config)
    size = int(shape.get("vocab_size"))
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[family.arch])
    writer.add_file_type(_FILE_TYPES[stored])
    add_hyperparameters(writer, shape)
    for key, value in {**vocabulary(folder, size), **_tokens_by_role(tokenizer, size)}.items():
        _add(writer, key, value)
    weights: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    tensors = tensors_of(model, family, shape, stored, four_bits)
    factors = rope_factors(shape)
    for tensor in tensors:
        _announce(writer, tensor.name, weights[tensor.own].shape, tensor.type)
    if factors is not None:
        _announce(writer, _FREQUENCIES, factors.shape, GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(tensor.to_file(weights[tensor.own]))
    if factors is not None:
        writer.write_tensor_data(factors)
    writer.close()


def read_back(file: Path, config: dict[str, Any], stored: str = GGUF_TYPES[0]) -> nn.Module:
    """Load the model that `write` wrote, evaluated, from the content of the file."""
    family, shape = family_of(config)
    make, arguments = _get_classes(dict(config))
    model: nn.Module = make(arguments.from_dict(dict(config)))
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    dtype = mx.float32 if worth_dequantizing(model) else mx.float16
    weights = {
        tensor.own: tensor.from_file(read[tensor.name]).astype(dtype)
        for tensor in tensors_of(model, family, shape, stored)
        if tensor.name in read  # not the head that is the embedding's
    }
    if hasattr(model, "sanitize"):
        weights = model.sanitize(weights)
    model.load_weights(list(weights.items()))
    mx.eval(model.parameters())
    model.eval()
    return model


def _announce(
    writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType
) -> None:
    """Add a tensor's place in the file, before any data is written."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = int(np.prod(shape)) // block * size
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        dtype: Any = np.float32 if kind is GGMLQuantizationType.F32 else np.float16
    else:
        dtype, shape = np.uint8, gguf.quant_shape_to_byte_shape(shape, kind)
    writer.add_tensor_info(name, shape, np.dtype(dtype), count, raw_dtype=kind)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _tokens_by_role(tokenizer: TokenizerWrapper, size: int) -> dict[str, Any]:
    """Return the metadata of special tokens among the first `size`, and the chat template.

    It says whether a text begins with the BOS token. Of several templates the default is taken.
    """
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    numbers = {
        theirs: getattr(tokenizer, f"{ours}_token_id", None) for ours, theirs in roles.items()
    }
    metadata: dict[str, Any] = {
        f"tokenizer.ggml.{role}_token_id": number
        for role, number in numbers.items()
        if number is not None and number < size
    }
    metadata["tokenizer.ggml.add_bos_token"] = tokenizer.encode("a")[:1] == [numbers["bos"]]
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if isinstance(template, str) and template:
        metadata["tokenizer.chat_template"] = template
    return metadata

"""Writes a fused llama-architecture model as one GGUF file, in 16 bits, and reads it back.

The format is ggml's (docs/gguf.md there). Names and the order of query and key rows are those of
mlx-lm's conversion (`mlx_lm.gguf`). Three errors of that conversion are avoided: rows that are
already in ggml's order are not reordered again, a byte-level tokenizer is written as such, and a
sentencepiece tokenizer with its merge order.

What is not covered: other architectures, biases, RoPE scaling, mixtures of experts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.gguf import GGMLFileType, permute_weights, translate_weight_names
from mlx_lm.models import llama
from mlx_lm.tokenizer_utils import TokenizerWrapper

from safetrain_shared.errors import InvalidInput
from safetraind.worker.config_keys import scales_nothing
from safetraind.worker.convert.gguf_reader import model_config, model_weights, read_gguf
from safetraind.worker.export.gguf_vocabulary import vocabulary
from safetraind.worker.loading import worth_dequantizing

_ARCHITECTURES = ("llama", "mistral")


def check_takes(config: dict[str, Any], folder: Path) -> None:
    """Raise InvalidInput, with the reason, for a model that cannot be written faithfully."""
    kind = config.get("model_type", "?")
    if kind not in _ARCHITECTURES:
        raise InvalidInput("export.gguf_architecture", architecture=kind)
    for name in ("rope_scaling", "attention_bias", "mlp_bias"):
        if config.get(name) and not (name == "rope_scaling" and scales_nothing(config[name])):
            raise InvalidInput("export.gguf_architecture", architecture=f"{kind} + {name}")
    vocabulary(folder, int(config["vocab_size"]))


def write(
    file: Path,
    model: nn.Module,
    config: dict[str, Any],
    folder: Path,
    tokenizer: TokenizerWrapper,
) -> None:
    """Write `model`, which must have no quantized layer, with the tokenizer in `folder`.

    Raises InvalidInput as `check_takes` does.
    """
    check_takes(config, folder)
    heads = {
        "self_attn.q_proj.weight": config["num_attention_heads"],
        "self_attn.k_proj.weight": config.get("num_key_value_heads", config["num_attention_heads"]),
    }
    arrays = {}
    for name, array in dict(tree_flatten(model.parameters())).items():
        rows = next((count for end, count in heads.items() if name.endswith(end)), 0)
        if rows and not config.get("rope_traditional"):
            array = permute_weights(array, rows)
        dtype = mx.float32 if array.ndim == 1 else mx.float16  # llama.cpp wants norms in float32
        arrays[translate_weight_names(name)] = mx.contiguous(array.astype(dtype))
    metadata = {
        **_hyperparameters(config),
        **vocabulary(folder, int(config["vocab_size"])),
        **_tokens_by_role(tokenizer, int(config["vocab_size"])),
    }
    mx.save_gguf(str(file), arrays, metadata)


def read_back(file: Path) -> nn.Module:
    """Load the model in `file`, evaluated, with the GGUF reader, independent of `write`."""
    gguf = read_gguf(file)
    config = model_config(gguf)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    model.load_weights(list(model_weights(gguf, config).items()))
    if worth_dequantizing(model):
        model.set_dtype(mx.float32)
    mx.eval(model.parameters())
    model.eval()
    return model


def _hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    head = config.get("head_dim") or hidden // heads
    counts = {
        "context_length": config.get("max_position_embeddings", 2048),
        "embedding_length": hidden,
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "rope.dimension_count": head,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.head_count": heads,
        "attention.head_count_kv": config.get("num_key_value_heads", heads),
        "vocab_size": config["vocab_size"],
    }
    reals = {
        "attention.layer_norm_rms_epsilon": config.get("rms_norm_eps", 1e-5),
        "rope.freq_base": config.get("rope_theta", 10000.0),
    }
    return {
        "general.architecture": "llama",
        "general.file_type": mx.array(int(GGMLFileType.GGML_TYPE_F16), mx.uint32),
        "general.alignment": mx.array(32, mx.uint32),
        **{f"llama.{name}": mx.array(value, mx.uint32) for name, value in counts.items()},
        **{f"llama.{name}": mx.array(value, mx.float32) for name, value in reals.items()},
    }


def _tokens_by_role(tokenizer: TokenizerWrapper, size: int) -> dict[str, Any]:
    """Return the metadata of special tokens among the first `size`, and the chat template.

    It says whether a text begins with the BOS token. Of several templates the default is taken.
    """
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    numbers = {
        theirs: getattr(tokenizer, f"{ours}_token_id", None) for ours, theirs in roles.items()
    }
    begins = tokenizer.encode("a")[:1] == [numbers["bos"]]
    metadata: dict[str, Any] = {
        f"tokenizer.ggml.{role}_token_id": mx.array(number, mx.uint32)
        for role, number in numbers.items()
        if number is not None and number < size
    }
    metadata["tokenizer.ggml.add_bos_token"] = mx.array(begins)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if isinstance(template, str) and template:
        metadata["tokenizer.chat_template"] = template
    return metadata

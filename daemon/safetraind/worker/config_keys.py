"""Keys of config.json for which mlx-lm's arguments of the architecture have no field.

mlx-lm drops such a key silently (`BaseModelArgs.from_dict`). Most describe nothing that is
computed. Those that change the model are put where the arguments look for them, or named.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from mlx_lm.utils import _get_classes

# The value of each key that changes nothing. Source: the modules of mlx-lm 0.32 that know the key,
# and the configurations of transformers 5.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention_multiplier": (None,),
    "attn_logit_softcapping": (None, 0, 0.0),
    "clip_qkv": (None, 0, 0.0),
    "embedding_multiplier": (None, 1, 1.0),
    "final_logit_softcapping": (None, 0, 0.0),
    "logit_scale": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "query_pre_attn_scalar": (None,),
    "residual_multiplier": (None, 1, 1.0),
    "scale_emb": (None, 1, 1.0),
    "alibi": (None, False),
}
# They are read elsewhere, or say how the model was made, stored or is to generate; nothing that is
# computed in training depends on them.
_BOOKKEEPING = frozenset(
    {"model_type", "architectures", "auto_map", "transformers_version", "torch_dtype", "dtype"}
    | {"_name_or_path", "use_cache", "initializer_range", "quantization", "quantization_config"}
    | {"bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "license", "text_config"}
    | {"rope_parameters", "rope_scaling", "hidden_act", "max_position_embeddings"}
    | {"attention_dropout", "hidden_dropout", "router_aux_loss_coef", "output_router_logits"}
)
# Modules that compute SiLU whatever the configuration calls its activation.
_SILU_ALONE = frozenset({"llama", "mistral3", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe"})
_SILU = (None, "silu", "swish")
_DEFAULT_BASE = 10000.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The keys of a configuration, by their treatment.

    `overrides`: keys as the architecture's arguments read them. `lost`: keys that change the model
    and that the arguments have no field for. `dropped`: other keys without a field, as far as they
    are not known to be bookkeeping.
    """

    overrides: Mapping[str, Any]
    lost: tuple[str, ...]
    dropped: tuple[str, ...] = ()


def read(config: Mapping[str, Any]) -> Reading:
    """Return a configuration as mlx-lm's arguments read it. Raises mlx-lm's error for an unknown
    architecture.
    """
    if "model_file" in config:  # its own code reads it
        return Reading({}, ())
    _, arguments = _get_classes(dict(config))
    module = importlib.import_module(arguments.__module__)
    overrides, lost = _read_level(config, _fields(arguments), module)
    dropped = _dropped(config, _fields(arguments), lost)
    text = config.get("text_config")
    if isinstance(text, Mapping) and "text_config" in _fields(arguments):
        inner, lost_inside = _read_level(text, _fields_inside(module), module)
        if inner:
            overrides["text_config"] = {**text, **inner}
        dropped_inside = _dropped(text, _fields_inside(module), lost_inside)
        dropped += [f"text_config.{name}" for name in dropped_inside]
        lost += [f"text_config.{name}" for name in lost_inside]
    return Reading(overrides, tuple(lost), tuple(dropped))


def _fields(arguments: type) -> set[str]:
    return set(inspect.signature(arguments).parameters)


def _fields_inside(module: ModuleType) -> set[str]:
    """Return the fields of all arguments that a module which wraps a text model may read: its own,
    and those of the modules of which it imports something.
    """
    found: set[str] = set()
    for wrapped in {module, *_imported(module)}:
        for value in vars(wrapped).values():
            if isinstance(value, type) and value.__name__.endswith(("Args", "Config")):
                found |= _fields(value)
    return found


def _imported(module: ModuleType) -> set[ModuleType]:
    """Return the modules of mlx-lm that `module` imports, or of which it imports a class."""
    names = {
        value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        for value in vars(module).values()
    }
    return {sys.modules[name] for name in names if name and name.startswith("mlx_lm.models.")}


def _read_level(
    config: Mapping[str, Any], fields: set[str], module: ModuleType
) -> tuple[dict[str, Any], list[str]]:
    overrides, lost = _rope(config, fields)
    for name, neutral in _NEUTRAL.items():
        if name in config and name not in fields and config[name] not in neutral:
            lost.append(name)
    if module.__name__.rpartition(".")[2] in _SILU_ALONE:
        name = "hidden_act"
        if name not in fields and config.get(name) not in _SILU:
            lost.append(f"{name} = {config[name]}"[:80])
    return overrides, lost


def _dropped(config: Mapping[str, Any], fields: set[str], lost: list[str]) -> list[str]:
    """Return the other keys that the arguments do not read. Keys of no effect are left out: null,
    false, an empty group, or a value that is known to change nothing.
    """
    reported = {name.partition(" ")[0] for name in lost}
    return sorted(
        name
        for name, value in config.items()
        if value
        and name not in fields | _BOOKKEEPING | reported
        and value not in _NEUTRAL.get(name, ())
    )


def _rope(config: Mapping[str, Any], fields: set[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the rotary embedding, which transformers 5 writes as one group, by its older keys."""
    group = config.get("rope_parameters")
    if not group or "rope_parameters" in fields:
        scaling = config.get("rope_scaling")
        lost = "rope_scaling" not in fields and not scales_nothing(scaling)
        return {}, ["rope_scaling"] if lost else []
    if not isinstance(group, Mapping):
        return {}, ["rope_parameters"]
    kinds = [value for value in group.values() if isinstance(value, Mapping)]
    if len(kinds) == len(group) and kinds:  # one for each kind of layer
        return _rope_by_layer(group, fields)
    return _rope_of(group, fields)


def _rope_by_layer(
    group: Mapping[str, Mapping[str, Any]], fields: set[str]
) -> tuple[dict[str, Any], list[str]]:
    kinds = list(group.values())
    if all(kind == kinds[0] for kind in kinds):
        return _rope_of(kinds[0], fields)
    local, rest = group.get("sliding_attention"), group.get("full_attention")
    local_only_base = local is not None and scales_nothing(local)
    if len(group) != 2 or rest is None or local is None or not local_only_base:
        return {}, ["rope_parameters"]
    if "rope_local_base_freq" not in fields:
        return {}, ["rope_parameters"]
    overrides, lost = _rope_of(rest, fields)
    return overrides | {"rope_local_base_freq": local.get("rope_theta", _DEFAULT_BASE)}, lost


def _rope_of(group: Mapping[str, Any], fields: set[str]) -> tuple[dict[str, Any], list[str]]:
    overrides: dict[str, Any] = {}
    lost: list[str] = []
    scaling = {k: v for k, v in group.items() if k not in ("rope_theta", "partial_rotary_factor")}
    wanted = {
        "rope_theta": (group.get("rope_theta", _DEFAULT_BASE), _DEFAULT_BASE),
        "partial_rotary_factor": (group.get("partial_rotary_factor", 1.0), 1.0),
    }
    for name, (value, neutral) in wanted.items():
        if name in fields and name in group:
            overrides[name] = value
        elif value != neutral:
            lost.append(f"rope_parameters.{name}")
    if not scales_nothing(scaling):
        if "rope_scaling" in fields:
            overrides["rope_scaling"] = scaling
        else:
            lost.append("rope_parameters")
    return overrides, lost


def scales_nothing(scaling: Any) -> bool:
    """Return whether a group of rope parameters scales nothing."""
    if not isinstance(scaling, Mapping) or not scaling:
        return not scaling
    return scaling.get("rope_type", scaling.get("type", "default")) == "default"

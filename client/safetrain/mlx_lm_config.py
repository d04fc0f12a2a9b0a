"""Converts configurations of `mlx_lm.lora` to safetrain's settings.

Source of the keys: `CONFIG_DEFAULTS` in mlx_lm/lora.py, 0.32. Missing keys are left to the planner,
not to mlx-lm's defaults; but a file that counts iterations fixes the micro-batch size and the
accumulation, the unit of its counts. A key without a counterpart is noted; one that would make it a
different training is refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from safetrain_shared.errors import InvalidInput, InvalidSetting
from safetrain_shared.findings import Finding, Status
from safetrain_shared.settings import FIELDS, SettingValue, checked

# mlx-lm's key → our setting, where only the name differs
_RENAMED = {
    "batch_size": "batch_size",
    "fine_tune_type": "fine_tune_type",
    "grad_accumulation_steps": "gradient_accumulation",
    "grad_checkpoint": "gradient_checkpointing",
    "learning_rate": "learning_rate",
    "mask_prompt": "mask_prompt",
    "max_seq_length": "max_seq_length",
    "seed": "seed",
}
# mlx-lm counts micro-batches here, safetrain counts optimizer steps.
_COUNTED = {
    "iters": "max_steps",
    "save_every": "save_steps",
    "steps_per_eval": "eval_steps",
    "steps_per_report": "log_steps",
}
_LORA = {"rank": "lora_rank", "scale": "lora_scale", "dropout": "lora_dropout"}
_SCHEDULES = {"cosine_decay": "cosine", "linear_schedule": "linear"}
_OPTIMIZERS = ("adam", "adamw")
_ADAMW_DECAY = 0.01  # mlx's default; its Adam has none
_BATCH_SIZE = 4  # mlx-lm's default
_RANK = 8
# Other trainers' keys → what the user would say here
_FOREIGN = {
    **dict.fromkeys(("lr", "lr_rate", "base_learning_rate"), "learning_rate"),
    **dict.fromkeys(("epochs", "num_train_epochs", "n_epochs", "max_epochs"), "num_epochs"),
    **dict.fromkeys(("micro_batch_size", "train_batch_size"), "batch_size"),
    **dict.fromkeys(("per_device_train_batch_size", "per_gpu_train_batch_size"), "batch_size"),
    **dict.fromkeys(
        ("gradient_accumulation_steps", "accumulate_grad_batches"), "gradient_accumulation"
    ),
    **dict.fromkeys(("r", "rank", "lora_r"), "lora_rank"),
    **dict.fromkeys(("alpha", "lora_alpha", "scale"), "lora_scale"),
    **dict.fromkeys(("target_modules", "lora_target_modules", "lora_modules"), "lora_targets"),
    **dict.fromkeys(("warmup", "warmup_ratio"), "warmup_steps"),
    **dict.fromkeys(("lr_scheduler", "lr_scheduler_type", "scheduler"), "schedule"),
    **dict.fromkeys(
        ("max_length", "seq_length", "sequence_len", "sequence_length"), "max_seq_length"
    ),
    **dict.fromkeys(("cutoff_len", "model_max_length", "max_seq_len"), "max_seq_length"),
    **dict.fromkeys(("steps", "num_steps", "max_iters", "train_steps"), "max_steps"),
    "dropout": "lora_dropout",
    "gradient_checkpoint": "gradient_checkpointing",
    "train_on_inputs": "mask_prompt: false",
    "use_dora": "fine_tune_type: dora",
}
_FOREIGN_LORA = {
    "r": "rank",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "lora_scale": "scale",
    "lora_dropout": "dropout",
    "target_modules": "keys",
    "lora_targets": "keys",
}
_READ = {"model", "data", "adapter_path", "trust_remote_code", "num_layers", "val_batches"}
_READ |= {
    "resume_adapter_file",
    "lora_parameters",
    "lr_schedule",
    "optimizer",
    "optimizer_config",
    *_RENAMED,
    *_COUNTED,
}
_NO_EFFECT = {"train", "config", "test_batches"}  # ignored without a note
_UNSUPPORTED = {"hf_dataset", "test", "report_to", "project_name"}
_UNSUPPORTED |= {"clear_cache_threshold"}
_KEYS = (_READ | _NO_EFFECT | _UNSUPPORTED) - FIELDS.keys()


@dataclass(frozen=True, slots=True)
class Config:
    """The contents of a configuration file; fields are empty where it has no value.

    `data`: a folder with train.jsonl and valid.jsonl. `counts`: settings in micro-batches.
    `start_adapter`: adapter weights to start from. `notes`: remarks for the user.
    """

    settings: dict[str, SettingValue] = field(default_factory=dict)
    model: str = ""
    data: str = ""
    output: str = ""
    trust_remote_code: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    start_adapter: str = ""
    notes: tuple[Finding, ...] = ()


def is_mlx_lm(values: Mapping[str, Any]) -> bool:
    """Whether the keys are those of `mlx_lm.lora`."""
    return bool(_KEYS & values.keys())


def from_mlx_lm(given: Mapping[str, Any]) -> Config:
    """Convert the file.

    Raises InvalidInput for an invalid value or a training that is not supported.
    """
    values = {str(name): value for name, value in given.items() if value is not None}
    if "hf_dataset" in values:
        raise InvalidInput("config.data_set", data=_data_set(values["hf_dataset"]))
    lora, schedule = _group(values, "lora_parameters"), _group(values, "lr_schedule")
    refuse_foreign(values)
    refuse_foreign(lora, "lora_parameters.", _FOREIGN_LORA, _LORA.keys() | {"keys", "alpha"})
    settings: dict[str, Any] = {n: values[n] for n in values if n in FIELDS and n not in _RENAMED}
    settings |= {_RENAMED[n]: _number(v) for n, v in values.items() if n in _RENAMED}
    counted = {name: ours for name, ours in _COUNTED.items() if name in values}
    if "num_epochs" in values:  # one of ours, which says it otherwise
        counted.pop("iters", None)
    counts = {ours: _count(values, name, 1) for name, ours in counted.items()}
    settings |= _counted(values, counts) | _layers(values) | _adapter(lora) | _optimizer(values)
    settings |= _schedule(schedule, constant="learning_rate" in values or "lr_schedule" in given)
    return Config(
        settings={name: checked(name, value) for name, value in settings.items()},
        model=_text(values, "model"),
        data=_text(values, "data"),
        output=_text(values, "adapter_path"),
        trust_remote_code=values.get("trust_remote_code") is True,
        counts=counts,
        start_adapter=_text(values, "resume_adapter_file"),
        notes=tuple(_notes(values, lora, schedule)),
    )


def refuse_foreign(
    values: Mapping[str, Any],
    group: str = "",
    foreign: Mapping[str, str] = _FOREIGN,
    known: Collection[str] = _READ | FIELDS.keys(),
) -> None:
    """Raise InvalidSetting for a key that means something to another trainer, or one of `known` in
    another spelling: passed over, it would make another training.
    """
    spellings = {_spelled(name): name for name in known}
    for name, value in values.items():
        if name in known or not value:  # one that is off is in complete files of others
            continue
        ours = foreign.get(_spelled(name)) or spellings.get(_spelled(name))
        inside = value if isinstance(value, Mapping) and not group else {}
        if nested := next((key for key in inside if key in FIELDS), None):
            name, ours = f"{name}.{nested}", nested
        if ours is not None:
            raise InvalidSetting("config.foreign", name=f"{group}{name}", ours=f"{group}{ours}")


def _spelled(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _data_set(value: Any) -> str:
    """Return the name of a data set of the hub; of several the first."""
    first = value[0] if isinstance(value, list) and value else value
    name = first.get("path") if isinstance(first, Mapping) else first
    return str(name)


def in_steps(micro_batches: int, accumulation: int) -> int:
    """Convert a count of micro-batches to whole optimizer steps, at least one."""
    return max(1, micro_batches // accumulation)


def _counted(values: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the settings in optimizer steps, and batch size and accumulation, their unit."""
    accumulation = _count(values, "grad_accumulation_steps", 1)
    ours: dict[str, Any] = {name: in_steps(n, accumulation) for name, n in counts.items()}
    if counts or values.get("lr_schedule"):
        ours["batch_size"] = _count(values, "batch_size", _BATCH_SIZE)
        ours["gradient_accumulation"] = accumulation
    if values.get("val_batches"):  # -1: the whole file, which is 0 here
        batches = _whole("val_batches", values["val_batches"], low=-1)
        ours["eval_samples"] = max(0, batches) * _count(values, "batch_size", _BATCH_SIZE)
    return ours


def _layers(values: Mapping[str, Any]) -> dict[str, Any]:
    if "num_layers" not in values:
        return {}
    return {"lora_layers": max(0, _whole("num_layers", values["num_layers"], low=-1))}  # -1: all


def _adapter(lora: Mapping[str, Any]) -> dict[str, Any]:
    ours = {_LORA[name]: _number(value) for name, value in lora.items() if name in _LORA}
    if _means_scale(lora):
        ours["lora_rank"] = _rank(lora)
        ours["lora_scale"] = _number(lora["alpha"]) / ours["lora_rank"]
    return ours | ({"lora_targets": lora["keys"]} if lora.get("keys") else {})


def _means_scale(lora: Mapping[str, Any]) -> bool:
    """Whether the scale is given as alpha, which is rank × scale."""
    if "alpha" not in lora or "scale" in lora:
        return False
    alpha = _number(lora["alpha"])
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise InvalidInput("config.type", name="lora_parameters.alpha", value=str(alpha))
    return True


def _rank(lora: Mapping[str, Any]) -> int:
    return _whole("lora_parameters.rank", lora.get("rank", _RANK), low=1)


def _optimizer(values: Mapping[str, Any]) -> dict[str, Any]:
    """Adam is AdamW without weight decay."""
    if "optimizer" not in values:
        return {}
    name = str(values["optimizer"]).lower()
    if name not in _OPTIMIZERS:
        raise InvalidInput("config.optimizer", name=name, known=", ".join(_OPTIMIZERS))
    own = _group(_group(values, "optimizer_config"), name)
    default = _ADAMW_DECAY if name == "adamw" else 0.0
    return {"weight_decay": _number(own.get("weight_decay", default))}


def _schedule(schedule: Mapping[str, Any], *, constant: bool) -> dict[str, Any]:
    """Convert the schedule; a learning rate without one is constant."""
    if not schedule:
        return {"schedule": "constant", "warmup_steps": 0} if constant else {}
    name = str(schedule.get("name"))
    warmup = _number(schedule.get("warmup") or 0)
    ours = {"schedule": _SCHEDULES.get(name, name), "warmup_steps": warmup}
    arguments = schedule.get("arguments") or []
    if not isinstance(arguments, list):
        raise InvalidInput("config.type", name="lr_schedule.arguments", value=str(arguments))
    if name == "linear_schedule" and _rises(arguments):
        raise InvalidInput("config.rising", arguments=str(arguments))
    return ours | ({"learning_rate": _number(arguments[0])} if arguments else {})


def _rises(arguments: list[Any]) -> bool:
    """Return whether a linear schedule, of a first and a last rate, ends above its beginning."""
    rates = [_number(argument) for argument in arguments[:2]]
    return (
        len(rates) == 2 and all(isinstance(r, int | float) for r in rates) and rates[0] < rates[1]
    )


def _notes(
    values: Mapping[str, Any], lora: Mapping[str, Any], schedule: Mapping[str, Any]
) -> Iterator[Finding]:
    """Yield a note for each key that is ignored or converted."""
    if values.get("train") is False:
        yield Finding("config.not_training", Status.WARNING)
    if _means_scale(lora):
        rank, alpha = _rank(lora), _number(lora["alpha"])
        args = {"alpha": alpha, "rank": rank, "scale": alpha / rank}
        yield Finding("config.alpha", Status.INFO, args=args)
    if path := values.get("resume_adapter_file"):
        yield Finding("config.start_adapter", Status.INFO, args={"path": str(path)})
    if len(schedule.get("arguments") or []) > 1:
        yield Finding("config.schedule", Status.INFO)
    own = _group(_group(values, "optimizer_config"), str(values.get("optimizer", "adam")).lower())
    groups = {
        "": (values, {*_READ, *_NO_EFFECT, *FIELDS}),
        "lora_parameters.": (lora, {*_LORA, "keys", *({"alpha"} if _means_scale(lora) else ())}),
        "lr_schedule.": (schedule, {"name", "arguments", "warmup"}),
        "optimizer_config.": (own, {"weight_decay"}),
    }
    for group, (given, known) in groups.items():
        # No note for values that are off: a complete file names every key.
        for name in (n for n, value in given.items() if n not in known and value):
            yield Finding("config.ignored", Status.INFO, args={"name": f"{group}{name}"})


def _group(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = values.get(name)
    if group is None:
        return {}
    if not isinstance(group, Mapping):
        raise InvalidInput("config.group", name=name, value=str(group))
    return {str(key): value for key, value in group.items() if value is not None}


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name, "")
    if not isinstance(value, str):
        raise InvalidInput("config.type", name=name, value=str(value))
    return value


def _count(values: Mapping[str, Any], name: str, default: int) -> int:
    return _whole(name, values[name], low=1) if name in values else default


def _whole(name: str, value: Any, *, low: int) -> int:
    number = _number(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InvalidInput("config.type", name=name, value=str(value))
    if not (math.isfinite(number) and number == int(number) and number >= low):
        raise InvalidInput("config.type", name=name, value=str(value))
    return int(number)


def _number(value: Any) -> Any:
    """Convert numbers in texts: PyYAML reads 1e-5 as text."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value

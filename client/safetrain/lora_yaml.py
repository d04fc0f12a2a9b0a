"""Configurations of `mlx_lm.lora`, in our names.

Source of theirs: `CONFIG_DEFAULTS` in mlx_lm/lora.py, 0.32. Its `iters` has no counterpart, since
we count epochs; neither have paths and reports, which `submit` takes as options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# theirs → ours, where only the name differs
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
# They count micro-batches here, we count optimizer steps.
_COUNTED = {
    "save_every": "save_steps",
    "steps_per_eval": "eval_steps",
    "steps_per_report": "log_steps",
}
_LORA = {"rank": "lora_rank", "scale": "lora_scale", "dropout": "lora_dropout"}
_SCHEDULES = {"cosine_decay": "cosine", "linear_schedule": "linear"}
_ONLY_THEIRS = {
    "adapter_path",
    "grad_checkpoint",
    "iters",
    "lora_parameters",
    "lr_schedule",
    "num_layers",
    "val_batches",
    *_COUNTED,
}


def is_mlx_lm(values: Mapping[str, Any]) -> bool:
    """Whether the names are those of `mlx_lm.lora`."""
    return bool(_ONLY_THEIRS & values.keys())


def from_mlx_lm(values: Mapping[str, Any]) -> dict[str, Any]:
    """What has a counterpart here, by our names; not yet checked."""
    ours = {_RENAMED[name]: _number(value) for name, value in values.items() if name in _RENAMED}
    accumulation = int(values.get("grad_accumulation_steps") or 1)
    for name, mine in _COUNTED.items():
        if name in values:
            ours[mine] = max(1, round(values[name] / accumulation))
    if "num_layers" in values:  # theirs: -1 for all layers; ours: 0
        ours["lora_layers"] = max(0, values["num_layers"])
    return ours | _adapter(values.get("lora_parameters") or {}) | _schedule(values)


def _adapter(lora: Mapping[str, Any]) -> dict[str, Any]:
    ours = {_LORA[name]: _number(value) for name, value in lora.items() if name in _LORA}
    return ours | ({"lora_targets": list(lora["keys"])} if lora.get("keys") else {})


def _schedule(values: Mapping[str, Any]) -> dict[str, Any]:
    """Their schedules move once an optimizer step, as ours do; without one the rate is constant."""
    schedule = values.get("lr_schedule")
    if not schedule:
        return {"schedule": "constant", "warmup_steps": 0}
    name = str(schedule.get("name"))
    return {"schedule": _SCHEDULES.get(name, name), "warmup_steps": schedule.get("warmup", 0)}


def _number(value: Any) -> Any:
    """PyYAML reads 1e-5, without a point, as text."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value

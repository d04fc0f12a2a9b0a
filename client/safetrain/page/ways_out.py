"""The ways out of findings that are one press of a button: its text and its choice. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from safetrain_shared.errors import ArgValue
from safetrain_shared.findings import Finding
from safetrain_shared.i18n import marked as _
from safetrain_shared.i18n import number, translate

Args = Mapping[str, ArgValue]


@dataclass(frozen=True, slots=True)
class WayOut:
    """A button: its text, and the field of Begin's form that it sets."""

    text: str
    field: str
    value: str


def _setting(name: str, arg: str) -> Callable[[Args], tuple[str, str, str]]:
    return lambda args: (f"{name} = {args[arg]}", f"set.{name}", str(args[arg]))


def _option(text: str, field: str, value: str = "on") -> Callable[[Args], tuple[str, str, str]]:
    return lambda _args: (translate(text), field, value)


def _thinking(value: str) -> Callable[[Args], tuple[str, str, str]]:
    return lambda _args: (f"thinking = {value}", "set.thinking", value)


def _gib(args: Args) -> str:
    return number(float(str(args["budget"])), "en")


_AGAIN = _option(_("Check again"), "again")
_SHORTER = _option(_("Let sequences be cut"), "allow_shorter")
_WAYS: Mapping[str, tuple[Callable[[Args], tuple[str, str, str]], ...]] = {
    "gpu.busy": (_option(_("Wait for the GPU"), "wait"),),
    "model.too_slow": (_option(_("Measure however long it takes"), "thorough"),),
    "model.needs_code": (_option(_("I have read it: allow it"), "trust_remote_code"),),
    "model.needs_remote_code": (_option(_("I have read it: allow it"), "trust_remote_code"),),
    "data.beyond_positions": (_setting("max_seq_length", "positions"),),
    "data.thinking_added": (_thinking("drop"),),
    "data.asked_otherwise": (_thinking("drop"), _thinking("keep")),
    "plan.refused_batch": (_setting("batch_size", "rows"),),
    "plan.refused_layers": (_setting("lora_layers", "layers"), _SHORTER),
    "plan.refused_length": (_setting("max_seq_length", "length"), _SHORTER),
    "plan.refused_both": (_setting("max_seq_length", "length"), _setting("lora_layers", "layers")),
    "plan.squeeze": (
        lambda args: (
            translate(_("Use up to {size} GiB")).format(size=_gib(args)),
            "memory_budget",
            f"{_gib(args)}GiB",
        ),
    ),
    "plan.smaller_model": (
        lambda args: (
            translate(_("Take {model}")).format(model=args["model"]),
            "model",
            str(args["model"]),
        ),
    ),
    "plan.pilot_failed": (_option(_("Give it five minutes"), "set.pilot_minutes", "5"),),
    **dict.fromkeys(
        (
            "hardware.memory_short",
            "hardware.pressure",
            "hardware.swap",
            "hardware.battery",
            "hardware.low_power",
            "disk.short",
            "disk.tight",
            "disk.no_room_for_model",
            "plan.close_app",
        ),
        (_AGAIN,),
    ),
}


def ways_out(finding: Finding) -> list[WayOut]:
    """Return the buttons for a finding, the best first; [] where it has none."""
    ways = _WAYS.get(finding.code) or _WAYS.get(str(finding.args.get("cause", "")), ())
    try:
        return [WayOut(*way(finding.args)) for way in ways]
    except KeyError:  # of a daemon of another version, with other arguments
        return []

"""The training settings as text: meaning, range and default; for `explain` and the docs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safetrain_shared.i18n import integer, number
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import sentence
from safetrain_shared.settings import FIELDS, PLANNED, TYPES, SettingValue


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting with its meaning. `planned`: its default depends on machine and data."""

    name: str
    type: str
    default: SettingValue
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    planned: bool
    meaning: str

    def to_json(self) -> dict[str, Any]:
        """Return its fields as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def setting(name: str) -> Setting:
    """Return the setting `name`, its meaning in the language in use."""
    field: Any = FIELDS[name]
    limits = field.metadata
    return Setting(
        name=name,
        type=TYPES[name].__name__,
        default=field.default,
        low=limits["low"],
        high=limits["high"],
        choices=limits["choices"],
        planned=name in PLANNED,
        meaning=sentence(f"explain.{name}", {}),
    )


def all_settings() -> Iterator[Setting]:
    """Return all settings, in the order of the table."""
    return (setting(name) for name in FIELDS)


def default(of: Setting) -> str:
    """Return the default as text; for a planned setting, that it is chosen."""
    if of.planned:
        return _("chosen for your machine, model and data")
    return value(of.default)


def value(raw: SettingValue) -> str:
    """Format a value as `--set` takes it."""
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, tuple):
        return ", ".join(raw) or _("empty")
    return number(raw) if isinstance(raw, int | float) else raw


def allowed(of: Setting) -> str:
    """Return the allowed values as text."""
    if of.choices:
        return ", ".join(of.choices)
    if of.low is not None and of.high is not None:
        return _("{low} to {high}").format(low=_bound(of.low), high=_bound(of.high))
    return {"bool": "true, false", "tuple": _("names, with commas between")}.get(of.type, of.type)


def _bound(value: float) -> str:
    return integer(value) if value == int(value) else number(value)


def setting_lines(of: Setting) -> list[str]:
    """Return the lines of `explain SETTING`."""
    rows = [
        (_("default"), default(of)),
        (_("values"), allowed(of)),
        (_("set it with"), f"--set {of.name}={_example(of)}"),
    ]
    return [of.name, f"  {of.meaning}", "", *(f"  {label}: {text}" for label, text in rows)]


def settings_lines() -> list[str]:
    """Return a line per setting: name, default, and the first sentence of its meaning."""
    settings = list(all_settings())
    wide = max(len(s.name) for s in settings)
    defaults = [_("planned") if s.planned else value(s.default) for s in settings]
    column = max(map(len, defaults))
    return [
        f"{s.name:<{wide}}  {d:<{column}}  {first_sentence(s.meaning)}"
        for s, d in zip(settings, defaults, strict=True)
    ]


def first_sentence(text: str) -> str:
    """Return the text up to its first full stop, colon or semicolon."""
    ends = [text.find(mark) for mark in (". ", ": ", "; ") if mark in text]
    return text[: min(ends)] if ends else text.removesuffix(".")


def _example(of: Setting) -> str:
    if of.type == "tuple":
        return "self_attn.q_proj,self_attn.v_proj"
    if of.type == "float":
        return f"{of.default:g}"
    return value(of.default)

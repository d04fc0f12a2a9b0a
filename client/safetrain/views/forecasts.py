"""When each machine would start and end a training, and which one is taken, as lines of text."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.i18n import duration
from safetrain_shared.i18n import translate as _


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a machine would start and end a training, in seconds from now; None: not known.

    `host`: empty for this machine. `refusal`: why it would not train it at all; empty: it would.
    """

    host: str
    start: float | None = None
    end: float | None = None
    refusal: str = ""


def forecast_line(one: Forecast) -> str:
    """Return what a machine foretells."""
    return f"{_name(one)}: {one.refusal or _times(one)}"


def choice_line(chosen: Forecast) -> str:
    """Return which machine is taken, and why."""
    if chosen.end is not None:
        text = _("Taken: {name}, where it would end soonest.")
    elif chosen.start is not None:
        text = _("Taken: {name}, where it would start soonest; no machine knows how long it takes.")
    else:
        text = _("Taken: {name}. No machine knows when it would start.")
    return text.format(name=_name(chosen))


def _name(one: Forecast) -> str:
    return one.host or _("this machine")


def _times(one: Forecast) -> str:
    if one.start is None:
        return _("when it would start is not known")
    start = _("starts in {time}").format(time=duration(one.start)) if one.start else ""
    start = start or _("starts at once")
    if one.end is None:
        return _("{start}; how long it takes is not known").format(start=start)
    return _("{start}, ends in {time}").format(start=start, time=duration(one.end))

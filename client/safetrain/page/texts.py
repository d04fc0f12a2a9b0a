"""The texts of the page, by their names in its JavaScript."""

from __future__ import annotations

from safetrain_shared.i18n import language, translate
from safetrain_shared.i18n import marked as _

WORDS: dict[str, str] = {
    "station_begin": _("Begin"),
    "skip": _("To the training"),
    "jobs": _("Jobs"),
    "no_jobs": _("No job yet."),
    "begin": _("Begin in a terminal with:"),
    "curves": _("Curves"),
    "loss": _("Loss"),
    "training": _("training"),
    "smooth": _("running mean"),
    "validation": _("validation"),
    "best": _("best"),
    "rate": _("Learning rate"),
    "memory": _("Memory"),
    "footprint": _("in use"),
    "peak": _("MLX's peak"),
    "budget": _("budget"),
    "step": _("step"),
    "no_points": _("Nothing measured yet."),
    "arrows": _("Left and right arrow keys read the curve point by point."),
    "log": _("What happened"),
    "no_log": _("Nothing yet."),
    "ask": _("Ask the model"),
    "question": _("Your question"),
    "base": _("the base model, without what it learned"),
    "send": _("Ask"),
    "stop": _("Stop"),
    "ask_hint": _("Enter asks, Shift+Enter begins a new line. Questions are kept nowhere."),
    "asking": _("asking"),
    "stopped": _("stopped"),
    "live": _("live"),
    "away": _("safetraind does not answer; waiting for it"),
    "gone": _("The dashboard was ended. Start it again: safetrain dashboard"),
    "language": _("Language"),
    "details": _("Details"),
    "seen": _("The data as the model sees it"),
    "seen_hint": _("What is learned is underlined."),
    "retry": _("Try again"),
}


def words() -> dict[str, str]:
    """Return every text in the language in use, and that language as `lang`."""
    return {"lang": language(), **{name: translate(text) for name, text in WORDS.items()}}

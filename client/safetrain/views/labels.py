"""Translated names of states, phases and sections, and the signs of findings."""

from __future__ import annotations

import click

from safetrain_shared.arg_words import STATES
from safetrain_shared.findings import Status
from safetrain_shared.i18n import marked as _
from safetrain_shared.i18n import translate

STATE_COLOURS = {
    "running": "green",
    "checking": "cyan",
    "paused": "yellow",
    "interrupted": "yellow",
    "failed": "red",
    "cancelled": "yellow",
}
PHASES = {
    "checking": _("checking"),
    "loading": _("loading the model"),
    "tokenizing": _("reading the data"),
    "training": _("in training"),
    "evaluating": _("evaluating"),
    "saving": _("saving a checkpoint"),
    "holding": _("holding"),
    "answering": _("answering a question"),
    "queue": _("waiting for the GPU"),
    "inspecting": _("reading the data"),
    "sending": _("sending the data"),
    "fetching": _("bringing the results"),
    "probing": _("measuring real training steps"),
    "first_token": _("generating a first token"),
    "pilot": _("trying learning rates"),
    "measuring": _("measuring real training steps"),
    "downloading": _("downloading"),
    "converting": _("converting"),
    "asking": _("asking the model"),
    "comparing": _("comparing the answers"),
    "fusing": _("fusing the adapter"),
    "gguf": _("writing the GGUF file"),
}
# States of one of several ranks; a phase is named by PHASES.
RANK_STATES = {
    "": _("starting"),
    "joining": _("joining the others"),
    "computing": _("computing"),
    "waiting": _("waiting"),
    "ended": _("done"),
}
SIGNS = {
    Status.PASSED: ("✓", "green"),
    Status.WARNING: ("⚠", "yellow"),
    Status.FAILED: ("✗", "red"),
    Status.SKIPPED: ("–", None),
    Status.INFO: ("•", None),
}
# Names of the preflight's sections in its summary.
SECTIONS = {
    "hardware": _("hardware"),
    "dependencies": _("dependencies"),
    "gpu": _("GPU"),
    "data": _("data"),
    "model": _("model"),
    "disk": _("disk space"),
    "recommendation": _("recommendation"),
}


def word(table: dict[str, str], name: str) -> str:
    """Return the translated name; `name` itself where a newer daemon sent an unknown one."""
    return translate(table.get(name, name))


def sign(status: Status) -> str:
    """Return the coloured sign of a status."""
    mark, colour = SIGNS[status]
    return click.style(mark, fg=colour) if colour else mark


def state(name: str) -> str:
    """Return the translated, coloured name of a job state."""
    return click.style(word(STATES, name), fg=STATE_COLOURS.get(name))

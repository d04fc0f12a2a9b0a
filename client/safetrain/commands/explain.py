"""`safetrain explain [SETTING]`: explain a setting, or list all settings."""

from __future__ import annotations

import click

from safetrain.echo import echo
from safetrain.session import Session, command
from safetrain.views.json_output import write
from safetrain.views.settings_table import all_settings, setting, setting_lines, settings_lines
from safetrain_shared.i18n import translate as _
from safetrain_shared.settings import FIELDS, unknown_setting


@command(
    _("Says what a setting means and does to memory and speed; without one, lists them all."),
    example="safetrain explain gradient_accumulation\nsafetrain explain",
)
@click.argument("name", metavar="[SETTING]", required=False)
def explain(session: Session, name: str | None) -> None:
    """Print one setting, or a line for each. Needs no daemon."""
    if name is None:
        if session.json:
            write([one.to_json() for one in all_settings()])
            return
        echo("\n".join(settings_lines()))
        return
    if name not in FIELDS:
        raise unknown_setting(name)
    if session.json:
        write(setting(name).to_json())
        return
    for line in setting_lines(setting(name)):
        echo(click.wrap_text(line.strip(), 88, "  ", "  ") if line.startswith(" ") else line)

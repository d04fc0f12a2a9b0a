"""Usage errors and click's own texts in the user's language.

click looks its texts up with gettext. `i18n.use_with_gettext` points gettext to safetrain's
catalogue, which has those in WORDS and PLURALS. Metavars in help texts (TEXT, [OPTIONS]) and names
of number types are not looked up by click (`translate_values`). Source: click 8.5, core,
decorators, exceptions, parser, shell_completion, types.
"""

from __future__ import annotations

import re
from copy import copy
from typing import TypeVar

import click

from safetrain_shared.i18n import language, translate
from safetrain_shared.i18n import marked as _
from safetrain_shared.i18n import marked_plural as plural

WORDS = (
    _("Usage:"),
    _("Options"),
    _("Commands"),
    _("Show this message and exit."),
    _("default: {default}"),
    _("required"),
    _("Missing command."),
    _("Missing argument"),
    _("Missing option"),
    _("Missing parameter"),
    _("Invalid value: {message}"),
    _("Invalid value for {param_hint}: {message}"),
    _("No such command {name!r}."),
    _("No such option {name!r}."),
    _("Option {name!r} does not take a value."),
    _("{value!r} is not a valid {number_type}."),
    _("{value} is not in the range {range}."),
    _("Choose from:\n\t{choices}"),
    _("%(prog)s, version %(version)s"),
    _("Shell completion is not supported for Bash versions older than 4.4."),
    _("Couldn't detect Bash version, shell completion is not supported."),
)
_VALUES = (
    _("ARGS"),
    _("COMMAND"),
    _("DATA"),
    _("FILE"),
    _("FLOAT RANGE"),
    _("FOLDER"),
    _("INTEGER"),
    _("INTEGER RANGE"),
    _("JOB"),
    _("KEY=VALUE"),
    _("NAME"),
    _("OPTIONS"),
    _("QUESTION"),
    _("SECONDS"),
    _("SEQ"),
    _("SETTING"),
    _("SIZE"),
    _("TEXT"),
)
# Texts with a plural: click looks them up with ngettext.
PLURALS = (
    plural("Got unexpected extra argument ({args})", "Got unexpected extra arguments ({args})"),
    plural("Option {name!r} requires an argument.", "Option {name!r} requires {nargs} arguments."),
    plural("{value!r} is not {choice}.", "{value!r} is not one of {choices}."),
    plural("Did you mean {possibility}?", "(Did you mean one of: {possibilities}?)"),
)
# Names of number types in click's message for an invalid number.
_TYPE_NAMES = {
    "integer": _("whole number"),
    "integer range": _("whole number"),
    "float": _("number"),
    "float range": _("number"),
}


def usage_error_text(program: str, error: click.UsageError) -> str:
    """Return what is wrong with a command line of `program`, and the command that shows its help.

    A group that is called without a command raises its help text as an error; that is returned
    unchanged.
    """
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    text = f"{program}: {usage_error(error)}"
    if error.ctx is None:
        return text
    command = f"{error.ctx.command_path} --help"
    return f"{text}\n" + translate(_("How to use it: {command}")).format(command=command)


def usage_error(error: click.UsageError) -> str:
    """Return what is wrong with a command line, without the program's name and help."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return translate("Missing command.")
    return error.format_message()


C = TypeVar("C", bound=click.Command)


def translate_values(command: C) -> C:
    """Translate metavars and type names of `command` into the language in use; return it."""
    for param in command.params:
        if name := _TYPE_NAMES.get(param.type.name):
            param.type = copy(param.type)
            param.type.name = translate(name)
    if language() == "en":
        return command
    context = click.Context(command)
    command.options_metavar = _value(command.options_metavar or "")
    if isinstance(command, click.Group):
        command.subcommand_metavar = _value(command.subcommand_metavar or "")
    for param in command.params:
        if not getattr(param, "is_flag", False):
            param.metavar = _value(param.make_metavar(context))
    return command


def _value(metavar: str) -> str:
    """Translate the words of a metavar; brackets and dots stay, as in [JOB]."""
    return re.sub(r"[A-Z][A-Z =]*[A-Z]", lambda found: translate(found[0]), metavar)

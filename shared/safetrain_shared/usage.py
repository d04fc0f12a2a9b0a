"""A wrong command line, in the user's language: click's own words, and how `complaint` shows them.

click looks its texts up with gettext; those named in WORDS it finds in our catalogue, because
`i18n.speak` points gettext there. Texts with a plural it asks for in a way that our catalogue has
no room for: `reworded` replaces them in the finished message. What stands for a value in a help
text (TEXT, [OPTIONS]) it does not look up at all: `worded` says it. Source: click 8.5, core,
decorators, exceptions, shell_completion, types.
"""

from __future__ import annotations

import re
from typing import TypeVar

import click

from safetrain_shared.i18n import language, translate
from safetrain_shared.i18n import marked as _

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
    _("{value} is not in the range {range}."),
    _("Choose from:\n\t{choices}"),
    _("%(prog)s, version %(version)s"),
    _("Shell completion is not supported for Bash versions older than 4.4."),
    _("Couldn't detect Bash version, shell completion is not supported."),
)
_VALUES = (
    _("ARGS"),
    _("COMMAND"),
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
_PLURALS = (
    (r"Got unexpected extra arguments? \((.*)\)", _("There is more than the command takes: {0}.")),
    (r"Option '(.*)' requires an argument\.", _("Option '{0}' needs a value.")),
    (r"('.*') is not (?:one of )?('.*')\.", _("{0} is not one of {1}.")),
    (r"\(Did you mean one of: (.*)\?\)", _("Did you mean one of these: {0}?")),
    (r"Did you mean (.*?)\?", _("Did you mean {0}?")),
    (r"('.*') is not a valid integer( range)?\.", _("{0} is not a whole number.")),
    (r"('.*') is not a valid float( range)?\.", _("{0} is not a number.")),
)


def complaint(program: str, error: click.UsageError) -> str:
    """What is wrong with a command line of `program`, and where the help is; a help itself alone.

    A group that is called without a command raises its whole help as an error.
    """
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    text = f"{program}: {wrong(error)}"
    if error.ctx is None:
        return text
    command = f"{error.ctx.command_path} --help"
    return f"{text}\n" + translate(_("How to use it: {command}")).format(command=command)


def wrong(error: click.UsageError) -> str:
    """What is wrong with a command line, alone; with one that lacks its command, just that."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return translate("Missing command.")
    return reworded(error.format_message())


C = TypeVar("C", bound=click.Command)


def worded(command: C) -> C:
    """The command with what stands for values in its help in the language in use."""
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
    """A metavar with its words translated, and what says optional or repeated as it is: [JOB]."""
    return re.sub(r"[A-Z][A-Z =]*[A-Z]", lambda found: translate(found[0]), metavar)


def reworded(message: str) -> str:
    """A message of click's with its plural forms in the language in use."""
    for pattern, sentence in _PLURALS:
        match = re.search(pattern, message)
        if match:
            text = translate(sentence).format(*match.groups())
            message = message[: match.start()] + text + message[match.end() :]
    return message

"""The `command` decorator: shared options, help text and example of every command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click

from safetrain.echo import echo
from safetrain_shared import i18n
from safetrain_shared.i18n import translate as _
from safetrain_shared.usage import translate_values

COMPLETE = "_SAFETRAIN_COMPLETE"  # set by a shell that asks for completions


@dataclass
class Session:
    """Values of the options that every command takes."""

    json: bool = False
    autostart: bool = True
    quiet: bool = False
    host: str = ""

    @property
    def terse(self) -> bool:
        """Whether only results and errors are printed, no progress."""
        return self.json or self.quiet

    def note(self, text: str) -> None:
        """Print a remark on standard error, unless --quiet is set."""
        if not self.quiet:
            echo(text, err=True)


C = TypeVar("C", bound=click.Command)


def command(
    text: str,
    *,
    example: str,
    name: str | None = None,
    cls: type[click.Command] = click.Command,
) -> Callable[..., click.Command]:
    """Decorate a function as a command with help, an example and the shared options.

    The function's first argument is the Session. `cls`: a subclass that extends the help.
    """

    def wrap(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(click.get_current_context().ensure_object(Session), *args, **kwargs)

        made = click.command(name, cls=cls, help=text, epilog=example_epilog(example))(call)
        return shared_options(made)

    return wrap


def example_epilog(example: str) -> str:
    """Return the epilog of a help text that shows `example`."""
    lines = "\n".join(f"  {line}" for line in example.splitlines())
    return "\b\n" + _("Example:") + "\n" + lines


def shared_options(target: C) -> C:
    """Add the options that every command has."""
    target.params += [
        _flag("--json", _("Print JSON, for programs."), _json),
        _flag("--quiet", _("Only results and errors: no notes, no progress."), _quiet),
        click.Option(
            ["--lang"],
            type=click.Choice(i18n.LANGUAGES),
            help=_("The language; by default the locale's."),
            expose_value=False,
            is_eager=True,
        ),
        _flag("--no-autostart", _("Do not start safetraind where none runs."), _no_autostart),
        click.Option(
            ["--host"],
            metavar="HOST",
            expose_value=False,
            callback=_host,
            help=_(
                "Another machine, by its name in `safetrain hosts` or in ssh; submit takes any too."
            ),
        ),
    ]
    return translate_values(target)


def _flag(name: str, text: str, callback: Callable[[Session], None]) -> click.Option:
    def noted(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            callback(ctx.ensure_object(Session))

    return click.Option([name], is_flag=True, expose_value=False, help=text, callback=noted)


def _json(session: Session) -> None:
    session.json = True


def _quiet(session: Session) -> None:
    session.quiet = True


def _no_autostart(session: Session) -> None:
    session.autostart = False


def _host(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value:
        ctx.ensure_object(Session).host = value

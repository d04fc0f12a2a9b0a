"""`safetrain completion SHELL`: print the completion script of a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from safetrain.echo import echo
from safetrain.session import COMPLETE, Session, command
from safetrain_shared.i18n import translate as _


@command(
    _(
        "Prints the script that lets a shell complete commands and options. Put one of these "
        "lines into the shell's start-up file; for fish, the output into "
        "~/.config/fish/completions/safetrain.fish."
    ),
    example='eval "$(safetrain completion bash)"\neval "$(safetrain completion zsh)"',
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(_session: Session, shell: str) -> None:
    """Print click's script for the shell."""
    cls = get_completion_class(shell)
    if cls is None:
        raise click.UsageError(shell)
    root = click.get_current_context().find_root().command
    echo(cls(root, {}, "safetrain", COMPLETE).source())

"""Entry point of the `safetrain` command; command modules are imported when called.

Nothing here imports gRPC, which would take most of the time of `safetrain --help`.
"""

from __future__ import annotations

import gettext
import importlib
import os
import sys
from collections.abc import Sequence

import click

from safetrain.session import COMPLETE, shared_options
from safetrain_shared import i18n
from safetrain_shared.errors import EXIT_INTERRUPTED, EXIT_OK
from safetrain_shared.gc_pause import gc_paused
from safetrain_shared.i18n import marked as _

# name → its one line in `safetrain --help`; the module is safetrain.commands.NAME
COMMANDS: dict[str, str] = {
    "preflight": _("Will it crash, and which settings should I use?"),
    "submit": _("Train a model: queue a job."),
    "status": _("One job at a glance."),
    "jobs": _("All jobs."),
    "watch": _("Follow a training live."),
    "plot": _("Draw loss, learning rate and memory."),
    "report": _("Everything about a training on one page."),
    "dashboard": _("Do it all in a browser, and look at it live."),
    "ask": _("Ask the model a question."),
    "chat": _("Talk with the model, turn by turn."),
    "serve": _("Let other programs ask the model, as they ask OpenAI's."),
    "evaluate": _("Did the training help? Base and adapter answer the same questions."),
    "export": _("Make a model of its own from base and adapter, for other programs."),
    "pause": _("Pause a job at its next step, with a checkpoint."),
    "resume": _("Let a paused job go on."),
    "cancel": _("End a job at its next step, with a checkpoint."),
    "retry": _("Try a failed or cancelled job again, from its last checkpoint."),
    "move": _("Move a waiting job to the front or the end of the queue."),
    "remove": _("Forget a job that has ended."),
    "prepare": _("From a spreadsheet or a dump to training and validation files."),
    "preview": _("See samples as the model will see them, and which tokens are learned."),
    "validate": _("Find every problem in training files."),
    "explain": _("What a setting means, for memory and for speed."),
    "diagnose": _("What troubles a training, and what to do about it."),
    "fetch": _("Bring a job's results from another machine to this one."),
    "hosts": _("Other machines on which you train: add, list, check, remove."),
    "models": _("Models for this machine: suggest, add, list, remove."),
    "completion": _("Teach your shell these commands."),
}


class _LazyGroup(click.Group):
    """A group whose commands are modules, imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        with gc_paused():
            module = importlib.import_module(f"safetrain.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command for an unknown name; else as click does."""
        if args[0] not in COMMANDS:
            import difflib

            for near in difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.7):
                text = i18n.translate("There is no command {name}. Did you mean {near}?")
                ctx.fail(text.format(name=args[0], near=near))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(gettext.gettext("Commands")):
            formatter.write_dl([(name, i18n.translate(text)) for name, text in COMMANDS.items()])


def group() -> click.Group:
    """Return the command line, with its texts in the language in use."""
    lazy = _LazyGroup(
        "safetrain",
        help=i18n.translate(
            "Fine-tune a language model on your own machine without a crash and without losing "
            "an hour of work."
        ),
        epilog="\b\n" + i18n.translate("Begin with:\n  safetrain preflight\n  safetrain submit"),
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    lazy = shared_options(lazy)
    version = click.version_option(
        package_name="safetrain", help=i18n.translate("Show the version and exit.")
    )
    return version(lazy)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code, one of `safetrain_shared.errors`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    i18n.use_with_gettext(i18n.lang_option(given))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = _run(group(), given)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        from safetrain.error_output import report  # loads the message tables: only on an error

        return report(error, as_json="--json" in given)
    return code if isinstance(code, int) else EXIT_OK


def _run(lazy: click.Group, given: list[str]) -> object:
    """Do what click's own `main` does, except for its handling of errors."""
    if COMPLETE in os.environ:
        lazy.main(given, "safetrain", complete_var=COMPLETE)  # prints completions and exits
    colour = False if _colourless() else None
    arguments = list(given)  # click empties the list
    with lazy.make_context("safetrain", arguments, color=colour) as context:
        return lazy.invoke(context)


def _colourless() -> bool:
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"

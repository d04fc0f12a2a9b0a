"""The `safetraind` command and its subcommands, from `run` to `uninstall`."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from safetrain_shared.errors import (
    EXIT_INTERRUPTED,
    EXIT_PIPE,
    EXIT_USAGE,
    Busy,
    NoRoom,
    NotAllowed,
    SafetrainError,
    Unreachable,
)
from safetrain_shared.i18n import LANGUAGES, decimal, lang_option, use_with_gettext
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import sentence
from safetrain_shared.paths import home
from safetrain_shared.usage import translate_values, usage_error, usage_error_text

if TYPE_CHECKING:
    from safetraind.storage.restore import Restored

# Each command imports its modules when it runs, which keeps `status` and `--help` quick.


def main() -> None:
    """Entry point of the `safetraind` script."""
    use_with_gettext(lang_option(sys.argv[1:]))  # before click: help texts are made first
    command = _cli()
    try:
        with command.make_context("safetraind", sys.argv[1:]) as context:
            command.invoke(context)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.UsageError as error:
        click.echo(_usage_error(error, as_json="--json" in sys.argv), err=True)
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python reports the pipe at exit
        sys.exit(EXIT_PIPE)


def _command(
    example: str, meaning: str
) -> Callable[[Callable[..., dict[str, Any]]], click.Command]:
    """Decorate a function as a command with `--json`, `--lang`, an example and error handling.

    The function returns a JSON object; `text` in it is printed without `--json`.
    """

    def decorate(function: Callable[..., dict[str, Any]]) -> click.Command:
        @wraps(function)
        def body(json: bool, **options: Any) -> None:
            try:
                result = function(**options)
            except SafetrainError as error:
                sys.exit(_report(error, as_json=json))
            except OSError as error:
                sys.exit(_report(_home_error(error), as_json=json))
            except ModuleNotFoundError as error:
                if str(error.name).startswith("safetrain"):
                    raise
                sys.exit(_report(Unreachable("daemon.not_installed"), as_json=json))
            _print(result, as_json=json)

        command = click.command(
            name=function.__name__.removesuffix("_"),
            help=meaning,
            epilog=_("Example: {example}").format(example=example),
        )(body)
        command = click.option("--json", is_flag=True, help=_("Print JSON."))(command)
        return _with_lang(command)

    return decorate


def _with_lang(command: click.Command) -> click.Command:
    """Add `--lang` to a command; `main` has already read its value."""
    meaning = _("Language of texts and help.")
    kind = click.Choice(LANGUAGES)
    return click.option("--lang", type=kind, expose_value=False, help=meaning)(command)


def _print(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({k: v for k, v in result.items() if k != "text"}))
    elif result.get("text"):
        click.echo(result["text"])


def _home_error(error: OSError) -> SafetrainError:
    """Return the error for a system error on a file of the home."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    cls, code = (NoRoom, "disk.refused") if full else (NotAllowed, "home.unwritable")
    path, reason = str(error.filename or home().root), error.strerror or str(error)
    return cls(code, path=path, reason=reason)


def _report(error: SafetrainError, *, as_json: bool) -> int:
    """Print the error on standard error and return its exit code."""
    text = sentence(error.code, error.args_by_name)
    if as_json:
        click.echo(_object(error.code, error.args_by_name, text, error.exit_code), err=True)
    else:
        click.echo(f"safetraind: {text}", err=True)
    return error.exit_code


def _usage_error(error: click.UsageError, *, as_json: bool) -> str:
    """Return the text for a wrong command line."""
    if as_json:
        return _object("usage", {}, usage_error(error), EXIT_USAGE)
    return usage_error_text("safetraind", error)


def _object(code: str, args: dict[str, Any], text: str, exit_code: int) -> str:
    """Return an error as JSON, in the form that `safetrain --json` prints."""
    body = {"code": code, "args": args, "text": text}
    return json.dumps({"error": body, "exit_code": exit_code})


def _cli() -> click.Command:
    """Return the commands, with their texts in the language in use."""
    group = click.Group(
        help=_("The service that trains. It goes on when the terminal closes."),
        epilog=_("Example: {example}").format(example="safetraind start"),
    )
    serving = (_run, _start, _stop, _restart, _status, _endpoint, _logs)
    for make in (*serving, _restore, _install, _uninstall):
        group.add_command(translate_values(make()))
    return translate_values(_with_lang(group))


def _run() -> click.Command:
    @_command("safetraind run", _("Serve in the foreground until Ctrl-C."))
    def run() -> dict[str, Any]:
        from safetraind import agent, app

        try:
            app.run(home())
        except Busy:
            if not agent.is_agent():  # else launchd would retry every ten seconds
                raise
        return {}

    return run


def _start() -> click.Command:
    @_command("safetraind start", _("Serve in the background."))
    def start() -> dict[str, Any]:
        from safetraind import agent

        pid = agent.start(home())
        text = _("safetraind serves {home} (pid {pid}).").format(home=home().root, pid=pid)
        text += _at_login()
        return {"running": True, "pid": pid, "home": str(home().root), "text": text}

    return start


def _stop() -> click.Command:
    @click.option("--now", is_flag=True, help=_("Checkpoint and end the training too."))
    @_command("safetraind stop", _("Stop the service. A training goes on without it."))
    def stop(now: bool) -> dict[str, Any]:
        from safetraind import background

        return _stopped(background.stop(home(), now=now))

    return stop


def _stopped(training: int) -> dict[str, Any]:
    text = _("safetraind has stopped.")
    if training:
        text += " " + _("Job {id} trains on without it; start it again to follow.").format(
            id=training
        )
    return {"running": False, "training_job": training, "text": text}


def _restart() -> click.Command:
    @_command(
        "safetraind restart",
        _("Stop the service and start it, as after an upgrade. A training goes on meanwhile."),
    )
    def restart() -> dict[str, Any]:
        from safetraind import agent

        pid = agent.restart(home())
        text = _("safetraind serves {home} (pid {pid}).").format(home=home().root, pid=pid)
        text += _at_login()
        return {"running": True, "pid": pid, "home": str(home().root), "text": text}

    return restart


def _at_login() -> str:
    """Return a further sentence on a fault of the start at login; empty without one."""
    from safetraind.host.agents import missing_program

    if gone := missing_program():
        return "\n" + sentence("daemon.agent_python_gone", {"python": gone})
    return ""


def _status() -> click.Command:
    @_command("safetraind status --json", _("Say whether the service runs; exit code 69 if not."))
    def status() -> dict[str, Any]:
        from safetraind import background

        info = background.info(home())
        hours = decimal((time.time() - info["started"]) / 3600, 1)
        text = _("safetraind {version} serves {home} (pid {pid}, {hours} h, {device}).").format(
            **info | {"hours": hours}
        )
        text += _at_login()
        return {"running": True, **info, "text": text}

    return status


def _endpoint() -> click.Command:
    @click.option("--no-start", is_flag=True, help=_("Start no service where none runs."))
    @_command(
        "safetraind endpoint --json",
        _("Say where the service listens, for a client on another machine; start it if need be."),
    )
    def endpoint(no_start: bool) -> dict[str, Any]:
        from safetraind import agent, background

        try:
            info = background.info(home())
        except Unreachable:
            if no_start:
                raise
            with contextlib.suppress(Busy):  # another client starts it meanwhile
                agent.start(home())
            background.wait(home())
            info = background.info(home())
        socket = str(home().socket)
        folder = str(Path.home())
        return {"socket": socket, "version": info["version"], "folder": folder, "text": socket}

    return endpoint


def _logs() -> click.Command:
    @click.option(
        "--lines",
        "-n",
        type=click.IntRange(min=0),
        default=50,
        show_default=True,
        help=_("How many lines."),
    )
    @_command("safetraind logs -n 100", _("Print the end of the log."))
    def logs(lines: int) -> dict[str, Any]:
        from safetraind.storage.durable import read_file

        path = home().log
        try:
            log = read_file(path).decode(errors="replace").splitlines()
        except FileNotFoundError:
            log = []
        tail = log[-lines:] if lines else []
        return {"path": str(path), "lines": tail, "text": "\n".join(tail)}

    return logs


def _restore() -> click.Command:
    @_command(
        "safetraind restore",
        _("Make a damaged or lost database whole again, from its backup and the jobs' folders."),
    )
    def restore() -> dict[str, Any]:
        from safetraind import app
        from safetraind.storage import restore as storage

        lock = app.take_home(home())
        try:
            done = storage.restore(home())
        finally:
            os.close(lock)
        result = {"jobs": done.jobs, "rebuilt": done.rebuilt, "backup": done.backup}
        return {**result, "aside": done.aside, "text": sentence(*_restored(done))}

    return restore


def _restored(done: Restored) -> tuple[str, dict[str, Any]]:
    args: dict[str, Any] = {"jobs": done.jobs, "rebuilt": done.rebuilt, "aside": done.aside}
    if not done.aside:
        return "restore.whole", args
    if not done.backup:
        return "restore.from_folders", args
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(done.backup))
    return "restore.from_backup", args | {"when": when}


def _install() -> click.Command:
    @_command(
        "safetraind install",
        _("Start the service at every login (launchd on macOS, systemd on Linux)."),
    )
    def install() -> dict[str, Any]:
        from safetraind import agent

        path, begun = agent.install(home())
        text = _("Written: {path}. safetraind starts at every login.").format(path=path)
        if not begun:
            text += " " + _("The service manager has not taken it yet; it will at the next login.")
        return {"path": str(path), "begun": begun, "text": text}

    return install


def _uninstall() -> click.Command:
    @_command("safetraind uninstall", _("Undo `install`. Jobs, models and trainings stay."))
    def uninstall() -> dict[str, Any]:
        from safetraind import agent

        path = agent.uninstall()
        text = _("Removed: {path}.").format(path=path) if path else _("It was not installed.")
        return {"path": str(path or ""), "text": text}

    return uninstall


if __name__ == "__main__":
    main()

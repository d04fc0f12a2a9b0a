"""Shared by `preflight` and `submit`: the options that describe a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from safetrain import inputs, split
from safetrain.connection import Daemon
from safetrain.mlx_lm_config import Config
from safetrain.session import Session
from safetrain.terminal.status_line import StatusLine
from safetrain.views.labels import sign
from safetrain.views.prepare import prepare_lines
from safetrain.views.settings_table import all_settings, first_sentence
from safetrain_proto.v1 import jobs_pb2
from safetrain_proto.v1.data_pb2 import PrepareEvent
from safetrain_shared.i18n import translate as _
from safetrain_shared.jobs import JobSpec
from safetrain_shared.messages import say
from safetrain_shared.settings import FIELDS, SEGMENT_MINUTES, SettingValue, parse
from safetrain_shared.wire import spec_to_wire

F = TypeVar("F", bound=Callable[..., Any])


class CommandWithSettings(click.Command):
    """A command whose help lists the settings, from the same source as `explain`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then a line per setting."""
        super().format_options(ctx, formatter)
        with formatter.section(_("Settings (in full: safetrain explain SETTING)")):
            formatter.write_dl([(one.name, first_sentence(one.meaning)) for one in all_settings()])


def job_options(function: F) -> F:
    """Add the options that describe a job; `spec_of` reads them."""
    options = [
        click.argument("data", required=False, metavar="[DATA]"),
        click.option(
            "--model",
            default=inputs.DEFAULT_MODEL,
            show_default=True,
            help=_("A known name (demo), a folder, or a name on the Hugging Face hub."),
        ),
        click.option("--train", metavar="FILE", help=_("Training data, JSON lines.")),
        click.option("--valid", metavar="FILE", help=_("Validation data, JSON lines.")),
        click.option(
            "--split",
            type=click.FloatRange(0, 0.9, min_open=True),
            is_flag=False,
            flag_value=0.1,
            help=_(
                "Without validation data: keep this share of the samples for it, 0.1 where no "
                "number stands. The file may then be anything that `safetrain prepare` reads."
            ),
        ),
        click.option(
            "--output",
            metavar="FOLDER",
            default=inputs.DEFAULT_OUTPUT,
            show_default=True,
            help=_("Where checkpoints, metrics and the adapter go."),
        ),
        click.option(
            "--config",
            metavar="FILE",
            help=_(
                "Settings from a file, such as recommended_config.json, or a YAML of mlx_lm.lora."
            ),
        ),
        click.option(
            "--set",
            "pairs",
            metavar="KEY=VALUE",
            multiple=True,
            help=_("One setting; again for more. They are told by: safetrain explain"),
        ),
        click.option(
            "--memory-budget",
            metavar="SIZE",
            help=_("Use at most this much memory, such as 6GB."),
        ),
        click.option(
            "--ignore-pressure",
            is_flag=True,
            help=_("Go on when other programs need memory, instead of making way for them."),
        ),
        click.option(
            "--allow-shorter", is_flag=True, help=_("Where memory runs out, sequences may be cut.")
        ),
        click.option(
            "--pilot",
            metavar="TIME",
            help=_("First try learning rates on the data for so long, such as 2min."),
        ),
        click.option(
            "--ranks",
            metavar="N",
            type=click.IntRange(1, int(FIELDS["ranks"].metadata["high"])),
            help=_("Divide each step over so many processes on this machine, for trying that out."),
        ),
        click.option(
            "--machines",
            metavar="NAMES",
            help=_("Divide each step with these other machines, such as studio,mini."),
        ),
        click.option(
            "--trust-remote-code",
            is_flag=True,
            help=_("Run the Python code that comes with the model."),
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def spec_of(
    session: Session,
    *,
    data: str | None,
    model: str,
    train: str | None,
    valid: str | None,
    split: float | None,
    output: str,
    config: str | None,
    pairs: tuple[str, ...],
    memory_budget: str | None,
    ignore_pressure: bool,
    allow_shorter: bool,
    pilot: str | None,
    ranks: int | None,
    machines: str | None,
    trust_remote_code: bool,
    name: str = "",
    overnight: bool = False,
    questions: str | None = None,
    evaluates: bool = False,
) -> jobs_pb2.JobSpec:
    """Return the job of the options and the configuration file, with absolute paths.

    With `split` it has no validation file yet: see `split_if_asked`.
    An option takes precedence over the file. Values of the file that are ignored or converted are
    noted. `evaluates`: `questions` are asked after the training, by default those held out beside
    the data. Raises InvalidInput, NotFound.
    """
    file = inputs.read_config(config) if config else Config()
    train, valid = inputs.named_data(data, train, valid)
    train_file, valid_file = inputs.data(train, valid, file.data, split=split is not None)
    spec = JobSpec(
        model=inputs.model(_given("model") or file.model or model),
        train=train_file,
        valid=valid_file,
        output=inputs.absolute(_given("output") or file.output or output),
        name=name,
        settings=inputs.settings(
            file,
            pairs,
            _unattended(ignore_pressure, overnight) | inputs.pilot(pilot) | _ranks(ranks, machines),
        ),
        memory_budget=inputs.memory(memory_budget),
        trust_remote_code=trust_remote_code or file.trust_remote_code,
        allow_shorter=allow_shorter,
        start_adapter=inputs.absolute(file.start_adapter) if file.start_adapter else "",
        evaluation=inputs.evaluation(questions, train_file) if evaluates else None,
    )
    message = spec_to_wire(spec)  # may raise, so before the notes
    notes = list(file.notes)
    if not (train or file.data):
        notes.append(inputs.default_data_note(train_file, valid_file))
    for note in notes:
        session.note(f"  {sign(note.status)} {say(note)}")
    return message


def sent(
    session: Session, daemon: Daemon, spec: jobs_pb2.JobSpec, status_line: StatusLine
) -> jobs_pb2.JobSpec:
    """Return the job as the daemon's machine knows it: its files are sent where that is another."""
    if not session.host:
        return spec
    from safetrain.remote.job_spec import for_host

    return for_host(daemon, spec, lambda done: status_line.show("sending", done))


def split_if_asked(
    session: Session, daemon: Daemon, spec: jobs_pb2.JobSpec, share: float | None, local: str
) -> None:
    """Split the validation file off the training file where `--split` is given; print a summary.

    `local`: the training file as this machine knows it.
    """
    if share is None:
        return

    def show(event: PrepareEvent) -> None:
        if not session.json and not event.HasField("progress"):
            for line in prepare_lines(event, with_samples=False):
                session.note(f"  {line}")

    split.split_data(daemon, spec, share, show, local=local)


def _unattended(ignore_pressure: bool, overnight: bool) -> dict[str, SettingValue]:
    """Return the settings that --ignore-pressure and --overnight stand for."""
    chosen: dict[str, SettingValue] = {"ignore_pressure": True} if ignore_pressure else {}
    return chosen | ({"segment_minutes": SEGMENT_MINUTES} if overnight else {})


def _ranks(count: int | None, machines: str | None) -> dict[str, SettingValue]:
    """Return the settings that --ranks and --machines stand for."""
    chosen: dict[str, SettingValue] = {} if count is None else {"ranks": count}
    return chosen if machines is None else chosen | {"machines": parse("machines", machines)}


def _given(option: str) -> str:
    """Return the value that the user gave for an option; empty where its default is used."""
    context = click.get_current_context()
    written = context.get_parameter_source(option) is not ParameterSource.DEFAULT
    return str(context.params[option]) if written else ""

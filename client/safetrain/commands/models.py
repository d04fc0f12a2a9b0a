"""`safetrain models add | list | remove`: manage the models kept on this machine."""

from __future__ import annotations

import click

from safetrain import inputs
from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.remote.local_files import LocalFiles
from safetrain.session import Session, command, example_epilog, shared_options
from safetrain.terminal.status_line import StatusLine
from safetrain.views.job import short_path
from safetrain.views.json_output import message_to_json, write
from safetrain.views.labels import sign
from safetrain.views.suggestions import suggestion_lines
from safetrain_proto.v1.models_pb2 import (
    AddModelRequest,
    ListModelsRequest,
    Model,
    RemoveModelRequest,
    SuggestModelsRequest,
)
from safetrain_shared.findings import Status
from safetrain_shared.i18n import size
from safetrain_shared.i18n import translate as _

models = shared_options(
    click.Group(
        "models",
        help=_("Models kept on this machine, which --model can name."),
        epilog=example_epilog("safetrain models add demo\nsafetrain models list"),
    )
)


@command(
    _("Gets a model and keeps it. Nothing is done where it is already there."),
    example="safetrain models add demo",
    name="add",
)
@click.argument("name")
def add(session: Session, name: str) -> None:
    """Show the progress, then the model with its licence."""
    status_line = StatusLine(silent=session.terse, log=True)
    with connected(session) as daemon:
        for event in daemon.stream(daemon.models.Add, AddModelRequest(name=name)):
            status_line.clear()
            if event.HasField("progress"):
                status_line.show(event.progress.phase, event.progress.done)
            if session.json:
                write(message_to_json(event))
            elif event.HasField("model"):
                echo(_shown(event.model))


@command(
    _("Lists the models that have a short name."), example="safetrain models list", name="list"
)
def list_models(session: Session) -> None:
    """Print one line per model."""
    with connected(session) as daemon:
        found = daemon.call(daemon.models.List, ListModelsRequest(), again=True).models
    if session.json:
        write([message_to_json(model) for model in found])
        return
    for model in found:
        echo(_shown(model))


@command(
    _("Tells which models are worth training on this machine, by size, and which of them fit."),
    example="safetrain models suggest --train data/farense_train.jsonl",
    name="suggest",
)
@click.option("--train", metavar="FILE", help=_("Training data, JSON lines."))
@click.option(
    "--memory-budget", metavar="SIZE", help=_("Use at most this much memory, such as 6GB.")
)
def suggest(session: Session, train: str | None, memory_budget: str | None) -> None:
    """Print the suggested models, one a line, class by class, and the data they were judged by."""
    request = SuggestModelsRequest(
        train=inputs.absolute(train) if train else "", memory_budget=inputs.memory(memory_budget)
    )
    with connected(session) as daemon:
        request.train = LocalFiles(daemon).there(request.train)
        found = daemon.call(daemon.models.Suggest, request, again=True)
    if session.json:
        write(message_to_json(found))
        return
    for line in suggestion_lines(found):
        echo(line)


@command(
    _("Deletes a model from this machine."), example="safetrain models remove demo", name="remove"
)
@click.argument("name")
def remove(session: Session, name: str) -> None:
    """Remove the model."""
    with connected(session) as daemon:
        daemon.call(daemon.models.Remove, RemoveModelRequest(name=name))
    if session.json:
        write({"name": name, "removed": True})
    else:
        echo(_("{name} is removed.").format(name=name))


def _shown(model: Model) -> str:
    """✓ demo · SmolLM2-135M-Instruct · Apache-2.0 · 256.6 MB · path."""
    parts = [model.name, model.origin, model.licence]
    if model.installed:
        parts += [size(model.bytes), short_path(model.path)]
    else:
        parts.append(_("not here yet: safetrain models add {name}").format(name=model.name))
    mark = sign(Status.PASSED if model.installed else Status.SKIPPED)
    return f"{mark} " + " · ".join(part for part in parts if part)


for _command in (add, list_models, suggest, remove):
    models.add_command(_command)

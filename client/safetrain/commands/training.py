"""What `preflight` and `submit` take alike: model, data, output folder, settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from safetrain import inputs
from safetrain_shared.i18n import translate as _
from safetrain_shared.jobs import JobSpec

F = TypeVar("F", bound=Callable[..., Any])


def job_options(function: F) -> F:
    """Adds the options that describe a job; `spec_of` reads them."""
    options = [
        click.option(
            "--model",
            default=inputs.DEFAULT_MODEL,
            show_default=True,
            help=_("A known name (demo), a folder, or a name on the Hugging Face hub."),
        ),
        click.option("--train", metavar="FILE", help=_("Training data, JSON lines.")),
        click.option("--valid", metavar="FILE", help=_("Validation data, JSON lines.")),
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
            help=_("Settings from a file, such as recommended_config.json."),
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
            "--allow-shorter", is_flag=True, help=_("Where memory runs out, sequences may be cut.")
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
    *,
    model: str,
    train: str | None,
    valid: str | None,
    output: str,
    config: str | None,
    pairs: tuple[str, ...],
    memory_budget: str | None,
    allow_shorter: bool,
    trust_remote_code: bool,
    name: str = "",
) -> JobSpec:
    """The job that the options describe, its paths absolute. Raises InvalidInput, NotFound."""
    train_file, valid_file = inputs.data(train, valid)
    return JobSpec(
        model=inputs.model(model),
        train=train_file,
        valid=valid_file,
        output=inputs.absolute(output),
        name=name,
        settings=inputs.settings(config, pairs),
        memory_budget=inputs.memory(memory_budget),
        trust_remote_code=trust_remote_code,
        allow_shorter=allow_shorter,
    )

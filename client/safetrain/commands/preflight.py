"""`safetrain preflight`: check machine, data and model, and recommend settings."""

from __future__ import annotations

from typing import Any

import click

from safetrain.commands.common.job_options import (
    CommandWithSettings,
    job_options,
    sent,
    spec_of,
    split_if_asked,
)
from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.session import Session, command
from safetrain.terminal.status_line import StatusLine
from safetrain.views.json_output import message_to_json, write
from safetrain.views.preflight_text import PreflightText
from safetrain_proto.v1.preflight_pb2 import PreflightRequest
from safetrain_shared.errors import EXIT_OK, Blocked
from safetrain_shared.i18n import translate as _


@command(
    _(
        "Checks machine, data and model, tries real training steps, and recommends settings. "
        "Writes preflight_report.json and recommended_config.json to the output folder."
    ),
    example="safetrain preflight\nsafetrain preflight --model demo --train a.jsonl --valid b.jsonl",
    cls=CommandWithSettings,
)
@job_options
@click.option("--wait", is_flag=True, help=_("Wait for the GPU where it is busy, then measure."))
@click.option(
    "--thorough", is_flag=True, help=_("Measure however long it takes, not two minutes at most.")
)
def preflight(session: Session, wait: bool, thorough: bool, **given: Any) -> int:
    """Print the seven sections as they finish; exit code 4 where something blocks."""
    spec = spec_of(session, **given)
    text, status_line, blocked = PreflightText(), StatusLine(silent=session.terse, log=True), False
    with connected(session) as daemon:
        local = spec.train
        spec = sent(session, daemon, spec, status_line)
        status_line.clear()
        split_if_asked(session, daemon, spec, given["split"], local)
        request = PreflightRequest(spec=spec, wait=wait, thorough=thorough)
        if not session.json:
            echo("\n".join(text.opening()))
        for event in daemon.stream(daemon.preflight.Run, request):
            blocked |= event.summary.blocked
            if session.json:
                write(message_to_json(event))
                continue
            status_line.clear()
            for line in text.lines(event):
                echo(line)
            if event.HasField("progress"):
                status_line.show(event.progress.phase, event.progress.done)
    return Blocked.exit_code if blocked else EXIT_OK

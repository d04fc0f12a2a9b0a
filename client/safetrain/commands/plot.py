"""`safetrain plot [JOB]`: write loss, learning rate and memory as PNG files."""

from __future__ import annotations

import importlib
import importlib.util
from concurrent.futures import ThreadPoolExecutor

import click

from safetrain.commands.common.job_selection import (
    ENDED_TO_DRAW,
    connected,
    job_to_draw,
    listed,
    output_here,
)
from safetrain.echo import echo
from safetrain.follower import events_so_far
from safetrain.int64 import JOB
from safetrain.session import Session, command
from safetrain.views.curves import curves_of
from safetrain.views.job import heading, short_path
from safetrain.views.json_output import write
from safetrain_shared.atomic_write import write_files
from safetrain_shared.errors import NotFound, Unreachable
from safetrain_shared.i18n import translate as _
from safetrain_shared.paths import PLOTS


@command(
    _(
        "Draws loss, learning rate and memory into plots/ of the job's output folder. Also while "
        "it trains."
    ),
    example="safetrain plot\nsafetrain plot 3 --lang pt",
)
@click.argument("job", type=JOB, required=False)
def plot(session: Session, job: int | None) -> None:
    """Write the plots and print their paths."""
    if importlib.util.find_spec("matplotlib") is None:
        raise Unreachable("plot.not_installed")
    with connected(session) as daemon, ThreadPoolExecutor(1) as aside:
        # Loading matplotlib takes as long as reading a long history: do both at once.
        loading = aside.submit(importlib.import_module, "safetrain.report.png_plots")
        chosen = job_to_draw(listed(daemon, job, ended=ENDED_TO_DRAW), job)
        curves = curves_of(events_so_far(daemon, chosen.id))
    if not (curves.steps or curves.evaluations):
        raise NotFound("plot.nothing_yet", id=chosen.id)
    folder = output_here(session, chosen) / PLOTS
    plots = loading.result().draw(curves, heading(chosen))
    files = {folder / name: png for name, png in plots.items()}
    write_files(files)
    if session.json:
        write({"id": chosen.id, "files": [str(path) for path in files]})
        return
    for path in files:
        echo(short_path(str(path)))

"""`safetrain export [JOB] --output FOLDER`: fuse adapter and base into a model folder."""

from __future__ import annotations

import click

from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.inputs import absolute
from safetrain.int64 import JOB
from safetrain.model_programs.giving import PROGRAMS, Give, needs_gguf, prepared
from safetrain.remote.local_files import output_there
from safetrain.session import Session, command
from safetrain.terminal.status_line import StatusLine
from safetrain.views.export import export_lines, given_line
from safetrain.views.json_output import exported_to_json, write
from safetrain_proto.v1.exports_pb2 import Exported, ExportRequest
from safetrain_shared.gguf_types import GGUF_TYPES
from safetrain_shared.i18n import translate as _


@command(
    _(
        "Fuses a job's best adapter into a model folder that mlx-lm and LM Studio load, once it "
        "was checked that the fused model answers as the adapter does. The job: the one you name, "
        "else the newest that has an adapter."
    ),
    example=(
        "safetrain export --output farense-model\nsafetrain export 3 --output farense-gguf --gguf\n"
        "safetrain export --output farense --to ollama"
    ),
)
@click.argument("job", type=JOB, required=False)
@click.option(
    "--output", metavar="FOLDER", required=True, help=_("A folder that is new, or empty.")
)
@click.option("--gguf", is_flag=True, help=_("A GGUF file in it too, and a Modelfile for Ollama."))
@click.option(
    "--gguf-type",
    type=click.Choice(GGUF_TYPES),
    help=_(
        "What the GGUF file is stored in: 16 bits, 8, or the 4 of a 4-bit base. Implies --gguf."
    ),
)
@click.option(
    "--to",
    "program",
    type=click.Choice(PROGRAMS),
    help=_("Gives it to that program of this machine too, under the folder's name."),
)
@click.option(
    "--dequantize", is_flag=True, help=_("16 bits throughout: larger, and nothing is rounded.")
)
@click.option("--checkpoint", default="", help=_("A checkpoint's folder name; else the best."))
@click.option("--wait", is_flag=True, help=_("Wait for the GPU where another job holds it."))
def export(
    session: Session,
    job: int | None,
    output: str,
    gguf: bool,
    gguf_type: str | None,
    program: str | None,
    dequantize: bool,
    checkpoint: str,
    wait: bool,
) -> None:
    """Print what was written and how well it agrees with the adapter."""
    request = ExportRequest(
        job_id=job or 0,
        output=absolute(output),
        checkpoint=checkpoint,
        gguf=gguf or gguf_type is not None or needs_gguf(program or ""),
        gguf_type=gguf_type or "",
        dequantize=dequantize,
        wait=wait,
    )
    status_line = StatusLine(silent=session.terse, log=True)
    give = prepared(program, request.output, session.host) if program else None
    with connected(session) as daemon:
        request.output = output_there(daemon, request.output)
        for event in daemon.stream(daemon.exports.Run, request):
            if event.HasField("progress"):
                status_line.show(event.progress.phase, event.progress.done)
                continue
            status_line.clear()
            _show(session, event.exported, give, program)


def _show(session: Session, done: Exported, give: Give | None, program: str | None) -> None:
    """Give the model to the program that was named, and print what was written."""
    if not session.json:
        for line in export_lines(done, host=session.host):
            echo(line)
    name = give(done) if give else None
    if session.json:
        write(exported_to_json(done, program or "", name))
    elif program and name:
        echo(given_line(program, name))

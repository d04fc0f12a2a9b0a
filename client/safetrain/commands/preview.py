"""`safetrain preview FILE`: show samples through the chat template, learned tokens marked."""

from __future__ import annotations

from pathlib import Path

import click

from safetrain import inputs
from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.int64 import Int64
from safetrain.mlx_lm_config import Config
from safetrain.remote.local_files import LocalFiles
from safetrain.session import Session, command
from safetrain.terminal.status_line import StatusLine
from safetrain.views.json_output import message_to_json, write
from safetrain.views.preview import lengths_line, sample_lines
from safetrain_proto.v1.data_pb2 import PreviewRequest
from safetrain_shared.i18n import translate as _
from safetrain_shared.wire import settings_to_wire

_SECONDS = 600.0  # a tokenizer of the hub is downloaded first


@command(
    _(
        "Shows samples as the model will see them: through its chat template, with what is learned "
        "marked, how many tokens they have, and what would be cut. The file is training "
        "data, or what `safetrain prepare` reads."
    ),
    example=(
        "safetrain preview dados/train.jsonl --model demo\n"
        "safetrain preview perguntas.csv --model demo --samples 1 --length 256"
    ),
)
@click.argument("file", metavar="FILE")
@click.option(
    "--model",
    default=inputs.DEFAULT_MODEL,
    show_default=True,
    help=_("A known name (demo), a folder, or a name on the Hugging Face hub."),
)
@click.option(
    "--samples", type=Int64(1), default=3, show_default=True, help=_("How many are shown.")
)
@click.option("--length", type=Int64(0), default=0, help=_("Show what max_seq_length would cut."))
@click.option(
    "--set",
    "pairs",
    metavar="KEY=VALUE",
    multiple=True,
    help=_("A setting that matters here: mask_prompt, thinking, max_seq_length."),
)
@click.option(
    "--trust-remote-code", is_flag=True, help=_("Run the Python code that comes with the model.")
)
def preview(
    session: Session,
    file: str,
    model: str,
    samples: int,
    length: int,
    pairs: tuple[str, ...],
    trust_remote_code: bool,
) -> None:
    """Print the samples, then their lengths; with --json the response."""
    settings = inputs.settings(Config(), pairs)
    chosen = settings.pop("max_seq_length", 0)
    request = PreviewRequest(
        path=inputs.absolute(file),
        model=inputs.model(model),
        samples=samples,
        max_seq_length=length or int(str(chosen)),
        settings=settings_to_wire(settings),
        trust_remote_code=trust_remote_code,
    )
    status_line = StatusLine(silent=session.terse)
    with connected(session) as daemon:
        local = LocalFiles(daemon, lambda done: status_line.show("sending", done))
        request.path = local.there(request.path)
        request.model = local.model_there(request.model)
        status_line.show("inspecting")
        try:
            answer = daemon.call(daemon.data.Preview, request, seconds=_SECONDS, again=True)
            answer = local.shown(answer)
        finally:
            status_line.clear()
    if session.json:
        write(message_to_json(answer))
        return
    for sample in answer.samples:
        echo("\n".join(sample_lines(sample, Path(file).name)))
    echo(lengths_line(answer, request.max_seq_length))

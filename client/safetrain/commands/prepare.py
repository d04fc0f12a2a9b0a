"""`safetrain prepare FILE… --output FOLDER`: convert data files to training files."""

from __future__ import annotations

from pathlib import Path

import click

from safetrain import inputs
from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.int64 import Int64
from safetrain.session import Session, command
from safetrain.terminal.status_line import StatusLine
from safetrain.views.job import short_path
from safetrain.views.json_output import message_to_json, write
from safetrain.views.prepare import prepare_lines
from safetrain_proto.v1.data_pb2 import PrepareRequest
from safetrain_shared.errors import InvalidInput, InvalidSetting
from safetrain_shared.i18n import translate as _

_HEAVIEST = 100.0


@command(
    _(
        "Makes training and validation files of what you have: JSON lines, JSON, CSV, TSV, Excel, "
        "Parquet, a folder of texts, a data set of the hub (hf:OWNER/NAME); chats, ShareGPT, "
        "Alpaca, columns of questions and answers. "
        "Repeats are removed, and near-equal samples stay on one side. Says how it reads each file "
        "before it writes; the same files and seed give the same result. A.csv=2 writes each "
        "training sample of a file twice, B.jsonl=0.5 every other one."
    ),
    example=(
        "safetrain prepare perguntas.csv --output dados\n"
        "safetrain prepare chats.json --output dados --map question=pergunta,answer=resposta"
    ),
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--output", metavar="FOLDER", required=True, help=_("A new or empty folder."))
@click.option(
    "--map",
    "mapping",
    metavar="KEY=VALUE",
    multiple=True,
    help=_("Which column holds what: question, answer, system, text or messages."),
)
@click.option(
    "--valid",
    type=click.FloatRange(0, 0.9),
    default=0.1,
    show_default=True,
    help=_("The share of the samples that validates."),
)
@click.option(
    "--questions",
    type=click.FloatRange(0, 0.9),
    default=0.0,
    help=_("The share held out as questions, for evaluation."),
)
@click.option("--seed", type=Int64(0), default=0, help=_("The same seed splits in the same way."))
def prepare(
    session: Session,
    files: tuple[str, ...],
    output: str,
    mapping: tuple[str, ...],
    valid: float,
    questions: float,
    seed: int,
) -> None:
    """Print how each file is read, what was dropped, and what was written."""
    weighted = [_weighted(file) for file in files]
    request = PrepareRequest(
        paths=[inputs.source(file) for file, _weight in weighted],
        weights=[weight for _file, weight in weighted],
        output=inputs.absolute(output),
        columns=_columns(mapping),
        valid_share=valid,
        questions_share=questions,
        seed=seed,
    )
    status_line = StatusLine(silent=session.terse)
    if session.host:
        raise InvalidInput("host.prepare", host=session.host)
    with connected(session) as daemon:
        for event in daemon.stream(daemon.data.Prepare, request):
            status_line.clear()
            if session.json:
                write(message_to_json(event))
            elif event.HasField("progress"):
                status_line.show(short_path(event.progress.path))
            else:
                echo("\n".join(prepare_lines(event)))


def _weighted(text: str) -> tuple[str, float]:
    """Parse A.csv=2: a file and its weight, by default 1. Raises InvalidSetting."""
    file, equals, weight = text.rpartition("=")
    if not equals or Path(text).exists():
        return text, 1.0
    try:
        return file, float(weight.replace(",", "."))
    except ValueError:
        raise InvalidSetting("prepare.weight", weight=weight, most=_HEAVIEST) from None


def _columns(pairs: tuple[str, ...]) -> dict[str, str]:
    """Parse --map: question=pergunta,answer=resposta. Raises InvalidSetting."""
    parts = ",".join(pairs).split(",") if pairs else ()
    split = (pair.partition("=") for pair in parts)
    return inputs.columns({role.strip(): column.strip() for role, _equals, column in split})

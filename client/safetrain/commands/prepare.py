"""`safetrain prepare FILE… --output FOLDER`: convert data files to training files."""

from __future__ import annotations

import json

import click

from safetrain import inputs
from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.int64 import Int64
from safetrain.session import Session, command
from safetrain.terminal.status_line import StatusLine
from safetrain.views.job import short_path
from safetrain.views.json_output import message_to_json, write
from safetrain.views.labels import sign
from safetrain_proto.v1.data_pb2 import Prepared, PrepareEvent, PrepareGuess, PrepareRequest
from safetrain_shared.errors import InvalidSetting
from safetrain_shared.findings import Status
from safetrain_shared.i18n import integer
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import SENTENCES, say
from safetrain_shared.wire import finding_from_wire

_ROLES = ("question", "answer", "system", "text", "messages")
_PREVIEW = 160  # characters shown of a message


@command(
    _(
        "Makes training and validation files of what you have: JSON lines, JSON, CSV, TSV, Excel, "
        "Parquet, a folder of texts; chats, ShareGPT, Alpaca, columns of questions and answers. "
        "Repeats are removed, and near-equal samples stay on one side. Says how it reads each file "
        "before it writes; the same files and seed give the same result."
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
    request = PrepareRequest(
        paths=[inputs.absolute(file) for file in files],
        output=inputs.absolute(output),
        columns=_columns(mapping),
        valid_share=valid,
        questions_share=questions,
        seed=seed,
    )
    status_line = StatusLine(silent=session.terse)
    with connected(session) as daemon:
        for event in daemon.stream(daemon.data.Prepare, request):
            status_line.clear()
            if session.json:
                write(message_to_json(event))
            elif event.HasField("progress"):
                status_line.show(short_path(event.progress.path))
            else:
                echo("\n".join(_lines(event)))


def _columns(pairs: tuple[str, ...]) -> dict[str, str]:
    """Parse --map: question=pergunta,answer=resposta. Raises InvalidSetting."""
    columns = {}
    for pair in ",".join(pairs).split(",") if pairs else ():
        role, _equals, column = pair.partition("=")
        if role.strip() not in _ROLES or not column.strip():
            raise InvalidSetting("prepare.map_form", text=pair, known=", ".join(_ROLES))
        columns[role.strip()] = column.strip()
    return columns


def _lines(event: PrepareEvent) -> list[str]:
    match event.WhichOneof("body"):
        case "guess":
            return _guess(event.guess)
        case "problem":
            finding = finding_from_wire(event.problem)
            place = short_path(f"{finding.args.get('path')}:{finding.args.get('line')}")
            text = say(finding, fallback=event.problem.text)
            return [f"{place}: {sign(finding.status)} {text}"]
    return _prepared(event.prepared)


def _guess(guess: PrepareGuess) -> list[str]:
    columns = ", ".join(f"{ours} = {theirs}" for ours, theirs in sorted(guess.columns.items()))
    details = [guess.form, columns, guess.encoding, guess.delimiter.replace("\t", "tab")]
    lines = [f"{short_path(guess.path)}: " + " · ".join(part for part in details if part)]
    for text in guess.samples:
        sample = json.loads(text)
        turns = sample.get("messages") or [{"role": "text", "content": sample.get("text")}]
        lines += [f"  {turn['role']}: {_short(str(turn['content']))}" for turn in turns]
        lines.append("")
    return lines


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _PREVIEW else line[: _PREVIEW - 1] + "…"


def _prepared(prepared: Prepared) -> list[str]:
    lines = [
        f"{sign(Status.WARNING)} {integer(count)} × {_dropped(code)}"
        for code, count in sorted(prepared.dropped.items())
    ]
    folder = short_path(prepared.output)
    for name, count in sorted(prepared.counts.items()):
        if count:
            text = _("{path}: {count} samples")
            text = text.format(path=f"{folder}/{name}", count=integer(count))
            lines.append(f"{sign(Status.PASSED)} {text}")
    if prepared.counts.get("valid.jsonl"):
        train, valid = f"{folder}/train.jsonl", f"{folder}/valid.jsonl"
        lines.append(f"  safetrain submit --train {train} --valid {valid}")
    return lines


def _dropped(code: str) -> str:
    """Return the kind of what was dropped, without the arguments of a single row."""
    kinds = {
        "prepare.repeated": _("a sample that stood there before"),
        "prepare.row_dropped": _("a row in which something is missing"),
    }
    return kinds.get(code) or SENTENCES.get(code, code).partition("{")[0].strip(' (:"')

"""What `prepare` and `submit --split` say of a source and of what came of it, as lines of text."""

from __future__ import annotations

import json
import shlex

from safetrain.views.job import short_path
from safetrain.views.labels import sign
from safetrain_proto.v1.data_pb2 import Prepared, PrepareEvent, PrepareGuess
from safetrain_shared.findings import Status
from safetrain_shared.i18n import format_text, integer
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import SENTENCES, say
from safetrain_shared.wire import finding_from_wire

_PREVIEW = 160  # characters shown of a message


def prepare_lines(event: PrepareEvent, *, with_samples: bool = True) -> list[str]:
    """Return the lines of one event. `with_samples`: also sample rows and the next command."""
    match event.WhichOneof("body"):
        case "guess":
            return _guess(event.guess, with_samples=with_samples)
        case "problem":
            finding = finding_from_wire(event.problem)
            place = short_path(f"{finding.args.get('path')}:{finding.args.get('line')}")
            text = say(finding, fallback=event.problem.text)
            return [f"{place}: {sign(finding.status)} {text}"]
    return _prepared(event.prepared, with_next_command=with_samples)


def _guess(guess: PrepareGuess, *, with_samples: bool) -> list[str]:
    columns = ", ".join(f"{ours} = {theirs}" for ours, theirs in sorted(guess.columns.items()))
    details = [guess.form, columns, guess.encoding, guess.delimiter.replace("\t", "tab")]
    lines = [f"{short_path(guess.path)}: " + " · ".join(part for part in details if part)]
    for text in guess.samples if with_samples else ():
        sample = json.loads(text)
        turns = sample.get("messages") or [{"role": "text", "content": sample.get("text")}]
        lines += [f"  {turn['role']}: {_short(str(turn['content']))}" for turn in turns]
        lines.append("")
    return lines


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _PREVIEW else line[: _PREVIEW - 1] + "…"


def _prepared(prepared: Prepared, *, with_next_command: bool) -> list[str]:
    lines = [
        f"{sign(Status.WARNING)} {integer(count)} × {dropped(code)}"
        for code, count in sorted(prepared.dropped.items())
    ]
    folder = short_path(prepared.output)
    for name, count in sorted(prepared.counts.items()):
        if count:
            text = _("{path}: {count:int} {count:|sample|samples}")
            text = format_text(text, {"path": f"{folder}/{name}", "count": count})
            lines.append(f"{sign(Status.PASSED)} {text}")
    if with_next_command and prepared.counts.get("train.jsonl"):
        lines.append("  " + shlex.join(["safetrain", "submit", folder]))
    return lines


def dropped(code: str) -> str:
    """Return the kind of what was dropped, without the arguments of a single row."""
    kinds = {
        "prepare.repeated": _("a sample that stood there before"),
        "prepare.weighted_out": _("a training sample that the weight of its file leaves out"),
        "prepare.row_dropped": _("a row in which something is missing"),
    }
    return kinds.get(code) or SENTENCES.get(code, code).partition("{")[0].strip(' (:"')

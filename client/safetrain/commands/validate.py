"""`safetrain validate FILE…`: list the problems of training files, with file, line and reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click

from safetrain import inputs
from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.remote.local_files import LocalFiles
from safetrain.session import Session, command
from safetrain.terminal.status_line import StatusLine
from safetrain.views.job import short_path
from safetrain.views.json_output import message_to_json, write
from safetrain.views.labels import sign
from safetrain_proto.v1 import findings_pb2
from safetrain_proto.v1.data_pb2 import FileSummary, ValidateRequest
from safetrain_shared.errors import EXIT_FAILED, EXIT_OK, ArgValue, NotFound
from safetrain_shared.findings import Finding, Status
from safetrain_shared.i18n import integer
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import say
from safetrain_shared.wire import finding_from_wire

_IN_FULL = 3  # problems of each kind in a file


@command(
    _(
        "Finds every problem in training files: file, line and reason. Exit code 1 for errors in "
        "them, 66 for a file that is not there."
    ),
    example="safetrain validate data/farense_train.jsonl data/farense_valid.jsonl",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
def validate(session: Session, files: tuple[str, ...]) -> int:
    """Print each problem as it is found, the first of each kind in full, then a line per file."""
    paths = [inputs.absolute(file) for file in files]
    status_line, problems = StatusLine(silent=session.terse), Problems()
    with connected(session) as daemon:
        local = LocalFiles(daemon, lambda done: status_line.show("sending", done))
        request = ValidateRequest(paths=[local.there(path) for path in paths])
        for event in map(local.shown, daemon.stream(daemon.data.Validate, request)):
            status_line.clear()
            line = problems.take(event.problem) if event.HasField("problem") else None
            if session.json:
                write(message_to_json(event))
            elif event.HasField("progress"):
                progress = event.progress
                share = progress.bytes_done / max(1, progress.bytes_total)
                status_line.show(short_path(progress.path), share)
            elif event.HasField("summary"):
                for left_out in problems.left_out():
                    echo(left_out)
                echo(_summary(event.summary, wrong=event.summary.path in problems.wrong))
            elif line is not None:
                echo(line)
    if "path.missing" in problems.codes:
        return NotFound.exit_code
    return EXIT_FAILED if problems.wrong else EXIT_OK


@dataclass
class _Kind:
    """How often a kind of problem was found; the first and the last that were not shown."""

    count: int = 0
    first: Finding | None = None
    last: Finding | None = None


class Problems:
    """The problems of the files so far. Of each kind in a file, the first `_IN_FULL` are shown."""

    def __init__(self) -> None:
        self.wrong: set[ArgValue | None] = set()  # paths of files with errors
        self.codes: set[str] = set()
        self._kinds: dict[tuple[ArgValue | None, str], _Kind] = {}  # by path and code

    def take(self, message: findings_pb2.Finding) -> str | None:
        """Return the problem as a line; None where its kind was shown often enough."""
        finding = finding_from_wire(message)
        path = finding.args.get("path")
        if finding.status is Status.FAILED:
            self.wrong.add(path)
            self.codes.add(finding.code)
        kind = self._kinds.setdefault((path, finding.code), _Kind())
        kind.count += 1
        if kind.count <= _IN_FULL:
            return _line(finding, message.text)
        kind.first, kind.last = kind.first or finding, finding
        return None

    def left_out(self) -> Iterator[str]:
        """Yield a line for each kind of which not all were shown, and start anew."""
        for kind in self._kinds.values():
            if kind.first is None or kind.last is None:
                continue
            if kind.first is kind.last:
                yield _line(kind.last)
                continue
            count, line = integer(kind.count - _IN_FULL), integer(_number(kind.last))
            text = _("and {count} more of this kind, up to line {line}")
            text = text.format(count=count, line=line)
            yield f"{_place(kind.first)}{sign(kind.last.status)} {text}"
        self._kinds.clear()


def _line(finding: Finding, fallback: str = "") -> str:
    return f"{_place(finding)}{sign(finding.status)} {say(finding, fallback=fallback)}"


def _place(finding: Finding) -> str:
    """Return file and line; empty for a finding on a whole file, whose sentence names it."""
    path, line = finding.args.get("path"), _number(finding)
    return f"{short_path(f'{path}:{line}')}: " if line else ""


def _number(finding: Finding) -> int:
    return int(finding.args.get("line") or 0)


def _summary(summary: FileSummary, *, wrong: bool) -> str:
    text = _("{path}: {format}, lines: {lines}, samples: {samples}, problems: {problems}")
    harmless = Status.WARNING if summary.problems else Status.PASSED
    return f"{sign(Status.FAILED if wrong else harmless)} " + text.format(
        path=short_path(summary.path),
        samples=integer(summary.samples),
        lines=integer(summary.lines),
        format=summary.format or "?",
        problems=integer(summary.problems),
    )

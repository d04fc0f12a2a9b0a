"""`safetrain validate FILE…`: list the problems of training files, with file, line and reason."""

from __future__ import annotations

import click

from safetrain import inputs
from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.session import Session, command
from safetrain.terminal.status_line import StatusLine
from safetrain.views.job import short_path
from safetrain.views.json_output import message_to_json, write
from safetrain.views.labels import sign
from safetrain_proto.v1.data_pb2 import FileSummary, ValidateRequest
from safetrain_proto.v1.findings_pb2 import STATUS_FAILED, Finding
from safetrain_shared.errors import EXIT_FAILED, EXIT_OK, NotFound
from safetrain_shared.findings import Status
from safetrain_shared.i18n import integer
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import say
from safetrain_shared.wire import finding_from_wire


@command(
    _(
        "Finds every problem in training files: file, line and reason. Exit code 1 for errors in "
        "them, 66 for a file that is not there."
    ),
    example="safetrain validate data/farense_train.jsonl data/farense_valid.jsonl",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
def validate(session: Session, files: tuple[str, ...]) -> int:
    """Print each problem as it is found, then a line per file."""
    request = ValidateRequest(paths=[inputs.absolute(file) for file in files])
    status_line, wrong, codes = StatusLine(silent=session.terse), set(), set()
    with connected(session, files_of="validate") as daemon:
        for event in daemon.stream(daemon.data.Validate, request):
            status_line.clear()
            if event.HasField("problem") and event.problem.status == STATUS_FAILED:
                problem = finding_from_wire(event.problem)
                wrong.add(problem.args.get("path"))
                codes.add(problem.code)
            if session.json:
                write(message_to_json(event))
            elif event.HasField("progress"):
                progress = event.progress
                share = progress.bytes_done / max(1, progress.bytes_total)
                status_line.show(short_path(progress.path), share)
            elif event.HasField("problem"):
                echo(_problem(event.problem))
            else:
                echo(_summary(event.summary, wrong=event.summary.path in wrong))
    if "path.missing" in codes:
        return NotFound.exit_code
    return EXIT_FAILED if wrong else EXIT_OK


def _problem(message: Finding) -> str:
    finding = finding_from_wire(message)
    text = say(finding, fallback=message.text)
    path, line = finding.args.get("path"), finding.args.get("line")
    # The sentence of a finding on a whole file names the file.
    place = f"{short_path(f'{path}:{line}')}: " if line else ""
    return f"{place}{sign(finding.status)} {text}"


def _summary(summary: FileSummary, *, wrong: bool) -> str:
    text = _("{path}: {samples} samples in {lines} lines ({format}), problems: {problems}")
    harmless = Status.WARNING if summary.problems else Status.PASSED
    return f"{sign(Status.FAILED if wrong else harmless)} " + text.format(
        path=short_path(summary.path),
        samples=integer(summary.samples),
        lines=integer(summary.lines),
        format=summary.format or "?",
        problems=integer(summary.problems),
    )

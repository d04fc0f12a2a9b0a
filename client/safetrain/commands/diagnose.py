"""`safetrain diagnose [JOB]`: find problems of a training, write an issue report, self-test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from safetrain.bundle import collect
from safetrain.commands.common.job_selection import connected
from safetrain.echo import echo
from safetrain.inputs import absolute
from safetrain.int64 import JOB
from safetrain.session import Session, command
from safetrain.terminal.diagnosis_text import lines, to_json
from safetrain.terminal.status_line import StatusLine
from safetrain.views.job import short_path
from safetrain.views.json_output import message_to_json, write
from safetrain_proto.v1.diagnosis_pb2 import ExamineRequest, ExamineResponse
from safetrain_shared import paths
from safetrain_shared.errors import (
    EXIT_FAILED,
    EXIT_OK,
    InvalidInput,
    SafetrainError,
    error_to_dict,
)
from safetrain_shared.findings import Status
from safetrain_shared.i18n import size
from safetrain_shared.i18n import translate as _
from safetrain_shared.wire import finding_from_wire

_SECONDS = 120.0  # a worker loads MLX and tries the device


@command(
    _(
        "Looks for what troubles a training: memory, model, speed, loss, GPU, the service. For "
        "each it says what was found and what to do. The exit code is 1 where something failed."
    ),
    example=(
        "safetrain diagnose\nsafetrain diagnose --bundle report.zip\nsafetrain diagnose --selftest"
    ),
)
@click.argument("job", type=JOB, required=False)
@click.option(
    "--bundle",
    metavar="FILE",
    help=_("Write a report for an issue, without secrets, questions, answers or training data."),
)
@click.option(
    "--selftest",
    is_flag=True,
    help=_(
        "Train a tiny model on this machine, kill it, let it resume, compare to the bit, and "
        "check the memory plan. A minute or two; your jobs are not touched."
    ),
)
@click.option(
    "--thorough",
    is_flag=True,
    help=_(
        "With --selftest: more kills, six more ways to train, a real model, and what a Mac offers."
    ),
)
def diagnose(
    session: Session, job: int | None, bundle: str | None, selftest: bool, thorough: bool
) -> int:
    """Print the findings of every topic, or run the self-test; write the report."""
    if session.host and (bundle is not None or selftest):
        raise InvalidInput("host.diagnose", host=session.host)
    if bundle is not None:
        collect.refuse_taken(Path(absolute(bundle)))
    if selftest:
        return _selftest(session, bundle, thorough=thorough)
    try:
        found = _examined(session, job or 0)
    except SafetrainError as error:
        if bundle is not None:  # a service that does not start is reported, too
            _report(session, bundle, {"error": error_to_dict(error)}, job)
        raise
    diagnosis = _to_json(found)
    if session.json:
        write(diagnosis)
    else:
        echo("\n".join(lines(found.findings)).strip())
    if bundle is not None:
        _report(session, bundle, diagnosis, found.job_id if job else None)
    failed = any(finding_from_wire(f).status is Status.FAILED for f in found.findings)
    return EXIT_FAILED if failed else EXIT_OK


def _selftest(session: Session, bundle: str | None, *, thorough: bool) -> int:
    """Show the self-test; the report is written even where it broke off."""
    record: dict[str, Any] = {"selftest": []}
    try:
        for message in _selftest_messages(session, thorough=thorough):
            record["selftest"].append(message)
    except SafetrainError as error:
        record["error"] = error_to_dict(error)
        raise
    finally:
        if bundle is not None:
            _report(session, bundle, record)
    passed = any(message.get("done", {}).get("passed") for message in record["selftest"])
    return EXIT_OK if passed else EXIT_FAILED


def _selftest_messages(session: Session, *, thorough: bool) -> Iterator[dict[str, Any]]:
    """Yield the messages of the self-test and print each as it arrives."""
    from safetrain.selftest_process import selftest
    from safetrain.terminal.selftest_text import conclusion, doing, verdict

    status_line = StatusLine(silent=session.terse)
    for message in selftest(thorough=thorough):
        status_line.clear()
        if session.json:
            write(message)
        elif "finding" in message:
            echo(verdict(message["finding"]))
        elif "done" in message:
            echo("\n".join(conclusion(message["done"])))
        else:
            status_line.show(doing(message["doing"]))
        yield message
    status_line.clear()


def _examined(session: Session, job: int) -> ExamineResponse:
    status_line = StatusLine(silent=session.terse)
    status_line.show("checking")
    try:
        with connected(session) as daemon:
            request = ExamineRequest(job_id=job)
            return daemon.call(daemon.diagnosis.Examine, request, seconds=_SECONDS, again=True)
    finally:
        status_line.clear()


def _to_json(found: ExamineResponse) -> dict[str, Any]:
    findings = [to_json(finding) for finding in found.findings]
    return {
        "job": found.job_id,
        "findings": findings,
        "machine": message_to_json(found)["machine"],
    }


def _report(
    session: Session, bundle: str, diagnosis: dict[str, Any], job: int | None = None
) -> None:
    path = Path(absolute(bundle))
    written = collect.write(path, paths.home(), diagnosis, job)
    if not session.json:
        text = _("The report is in {path} ({size}). Read it before you send it.")
        session.note(text.format(path=short_path(str(path)), size=size(written)))

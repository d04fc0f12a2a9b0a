"""`safetrain report [JOB]`: everything about a training on one page of HTML."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from safetrain.commands.common.job_files import job_to_draw, story, write_whole
from safetrain.commands.common.job_selection import AT_WORK, connected
from safetrain.connection import Daemon
from safetrain.inputs import absolute
from safetrain.int64 import JOB
from safetrain.report.preflight_facts import Measured, measured
from safetrain.report.report_page import Contents, Sample, page
from safetrain.sample_questions import Asked, spread
from safetrain.session import Session, command
from safetrain.views.answer import Answer
from safetrain.views.job import name_of, short_path
from safetrain.views.json_output import write
from safetrain_proto.v1.answers_pb2 import AskRequest, Message
from safetrain_proto.v1.jobs_pb2 import Job, ListJobsRequest
from safetrain_shared.errors import SafetrainError
from safetrain_shared.events import CheckpointSaved, Event
from safetrain_shared.i18n import translate as _
from safetrain_shared.paths import PLOTS, PREFLIGHT_REPORT, REPORT
from safetrain_shared.wire import spec_from_wire

_QUESTIONS = 3
_TOKENS = 160  # of an answer
_PATIENCE_SECONDS = 120.0  # for all answers together: a report is not worth more waiting
_KEEP_ALIVE_SECONDS = 20.0  # from one question to the next


@command(
    _(
        "Writes a page about a training: settings and why, machine, data, curves, checkpoints, "
        "what happened, and the command to run it again. It opens from the file, without a "
        "network. Also while the job trains."
    ),
    example=(
        "safetrain report\n"
        'safetrain report 3 --output farense.html --ask "Quem é o rival principal?"'
    ),
)
@click.argument("job", type=JOB, required=False)
@click.option(
    "--output",
    metavar="FILE",
    help=_("Where to; by default plots/report.html in the job's folder."),
)
@click.option(
    "--ask",
    "questions",
    metavar="QUESTION",
    multiple=True,
    help=_(
        "What base model and adapter are to answer, again for more; by default a few questions of "
        "the validation data, while nothing trains."
    ),
)
@click.option("--no-answers", is_flag=True, help=_("Leave out the sample answers."))
def report(
    session: Session,
    job: int | None,
    output: str | None,
    questions: tuple[str, ...],
    no_answers: bool,
) -> None:
    """Writes the page and prints its path."""
    with connected(session) as daemon:
        jobs = daemon.call(daemon.jobs.List, ListJobsRequest(), again=True).jobs
        chosen = job_to_draw(jobs, job)
        events = story(daemon, chosen)
        asked = [Asked(question) for question in questions]
        if not asked and chosen.step and not any(name_of(one) in AT_WORK for one in jobs):
            asked = spread(chosen.spec.valid, _QUESTIONS)
        samples = [] if no_answers else list(_samples(session, daemon, chosen, asked))
    path = Path(absolute(output)) if output else Path(chosen.spec.output) / PLOTS / REPORT
    contents = Contents(
        job=chosen,
        events=events,
        made=time.time(),
        version=version("safetrain"),
        measured=_measured(chosen),
        machine=_this_machine(),
        samples=samples,
        on_disk=_on_disk(events),
    )
    write_whole({path: page(contents).encode()})
    if session.json:
        write({"id": chosen.id, "file": str(path)})
    else:
        click.echo(short_path(str(path)))


def _samples(
    session: Session, daemon: Daemon, job: Job, asked: Iterable[Asked]
) -> Iterator[Sample]:
    """Each question answered twice, until the answers cannot be had: the page comes without."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    try:
        for one in asked:
            session.note(_("Asking: {question}").format(question=one.question))
            base = _answer(daemon, job, one, deadline, base=True)
            adapter = _answer(daemon, job, one, deadline, base=False)
            yield Sample(one.question, base, adapter, one.expected)
    except SafetrainError as error:
        session.note(_("No more sample answers: {reason}").format(reason=error))


def _answer(daemon: Daemon, job: Job, asked: Asked, deadline: float, *, base: bool) -> Answer:
    answer = Answer()
    messages = [Message(role="user", content=asked.question)]
    if asked.system:
        messages.insert(0, Message(role="system", content=asked.system))
    request = AskRequest(
        messages=messages,
        job_id=job.id,
        base=base,
        max_tokens=_TOKENS,
        keep_alive_seconds=_KEEP_ALIVE_SECONDS,
    )
    seconds = max(0.0, deadline - time.monotonic())
    for event in daemon.stream(daemon.answers.Ask, request, seconds=seconds):
        answer.take(event)
    return answer


def _measured(job: Job) -> Measured | None:
    try:
        found: Any = json.loads((Path(job.spec.output) / PREFLIGHT_REPORT).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return measured(found, spec_from_wire(job.spec))


def _this_machine() -> str:
    """The daemon is on the same machine: its socket is a file."""
    system = f"macOS {platform.mac_ver()[0]}" if platform.mac_ver()[0] else platform.platform()
    return " · ".join(
        filter(None, [system, platform.machine(), f"Python {platform.python_version()}"])
    )


def _on_disk(events: list[Event]) -> frozenset[str]:
    paths = {event.body.path for event in events if isinstance(event.body, CheckpointSaved)}
    return frozenset(path for path in paths if Path(path).is_dir())

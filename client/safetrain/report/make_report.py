"""Gathers what a job's report shows, over the connection and from its folder, and renders it."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetrain.asking import ask
from safetrain.connection import Daemon
from safetrain.follower import events_so_far
from safetrain.job_folder import is_replaced, local_folder
from safetrain.report.preflight_facts import PreflightFacts, read_facts
from safetrain.report.report_page import Contents, Sample, page
from safetrain.sample_questions import SampleQuestion, evenly_spaced
from safetrain.views.answer import Answer
from safetrain_proto.v1.answers_pb2 import AskRequest, Message
from safetrain_proto.v1.jobs_pb2 import Job
from safetrain_shared.errors import NotFound, SafetrainError
from safetrain_shared.events import CheckpointSaved, Event
from safetrain_shared.i18n import translate as _
from safetrain_shared.paths import PLOTS, PREFLIGHT_REPORT, REPORT
from safetrain_shared.wire import spec_from_wire

Note = Callable[[str], None]  # takes a sentence on the progress

_QUESTIONS = 3
_TOKENS = 160  # of an answer
_ANSWERS_SECONDS = 120.0  # deadline of all answers together
_KEEP_ALIVE_SECONDS = 20.0  # the model stays loaded between two questions


def default_path(job: Job, host: str = "") -> Path:
    """Return the path of plots/report.html in the job's folder on this machine."""
    return local_folder(job, host) / PLOTS / REPORT


def default_questions(job: Job, host: str = "") -> list[SampleQuestion]:
    """Return a few questions of the job's validation data, with their reference answers.

    None for a job of another machine, whose files are not read from here.
    """
    return [] if host else evenly_spaced(job.spec.valid, _QUESTIONS)


def make_report(daemon: Daemon, job: Job, questions: Sequence[SampleQuestion], note: Note) -> str:
    """Return the report as HTML; base model and adapter answer each of the `questions`."""
    events = events_so_far(daemon, job.id)
    return page(
        Contents(
            job=job,
            events=events,
            made=time.time(),
            version=version("safetrain"),
            measured=_measured(daemon, job),
            machine=daemon.host or _this_machine(),
            samples=list(_samples(daemon, job, questions, note)),
            on_disk=None if daemon.host else _on_disk(events),
        )
    )


def _samples(
    daemon: Daemon, job: Job, questions: Iterable[SampleQuestion], note: Note
) -> Iterator[Sample]:
    """Yield each question with both answers; stops at the first error, which is noted."""
    deadline = time.monotonic() + _ANSWERS_SECONDS
    try:
        for one in questions:
            note(_("Asking: {question}").format(question=one.question))
            base = _answer(daemon, job, one, deadline, base=True)
            adapter = _answer(daemon, job, one, deadline, base=False)
            yield Sample(one.question, base, adapter, one.expected)
    except SafetrainError as error:
        note(_("No more sample answers: {reason}").format(reason=error))


def _answer(
    daemon: Daemon, job: Job, sample: SampleQuestion, deadline: float, *, base: bool
) -> Answer:
    answer = Answer()
    messages = [Message(role="user", content=sample.question)]
    if sample.system:
        messages.insert(0, Message(role="system", content=sample.system))
    request = AskRequest(
        messages=messages,
        job_id=job.id,
        base=base,
        max_tokens=_TOKENS,
        keep_alive_seconds=_KEEP_ALIVE_SECONDS,
    )
    seconds = max(0.0, deadline - time.monotonic())
    for event in ask(daemon, request, seconds=seconds):
        answer.take(event)
    return answer


def _measured(daemon: Daemon, job: Job) -> PreflightFacts | None:
    if not daemon.host and is_replaced(job):
        return None
    try:
        found: Any = json.loads(_preflight_report(daemon, job))
    except (OSError, ValueError, RecursionError, NotFound):
        return None
    return read_facts(found, spec_from_wire(job.spec))


def _preflight_report(daemon: Daemon, job: Job) -> bytes:
    if not daemon.host:
        return (Path(job.spec.output) / PREFLIGHT_REPORT).read_bytes()
    from safetrain.remote.fetch import content

    return content(daemon, job.id, PREFLIGHT_REPORT)


def _this_machine() -> str:
    """Return the machine in a line; the daemon runs on the same one."""
    system = f"macOS {platform.mac_ver()[0]}" if platform.mac_ver()[0] else platform.platform()
    return " · ".join(
        filter(None, [system, platform.machine(), f"Python {platform.python_version()}"])
    )


def _on_disk(events: list[Event]) -> frozenset[str]:
    paths = {event.body.path for event in events if isinstance(event.body, CheckpointSaved)}
    return frozenset(path for path in paths if Path(path).is_dir())

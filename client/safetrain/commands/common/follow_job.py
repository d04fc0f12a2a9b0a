"""Shared by `watch` and `submit`: follow a job to its end, optionally writing for TensorBoard."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from safetrain.commands.common.job_selection import EXIT_CODES, output_here
from safetrain.connection import Daemon
from safetrain.echo import echo
from safetrain.follower import Follower
from safetrain.inputs import absolute
from safetrain.session import Session
from safetrain.views.evaluation import head_lines
from safetrain.views.event_lines import line
from safetrain.views.job import next_steps, short_path
from safetrain_proto.v1.jobs_pb2 import Job, JobRequest
from safetrain_shared.arg_words import STATES, word
from safetrain_shared.errors import EXIT_FAILED, EXIT_OK
from safetrain_shared.events import Event
from safetrain_shared.i18n import translate as _
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import TENSORBOARD

F = TypeVar("F", bound=Callable[..., Any])
EventSink = Callable[[Event], None]
_NO_CURSOR = ("dumb", "unknown")  # values of TERM without cursor control


def report_options(function: F) -> F:
    """Add `--report-to` and `--log-dir`, whose values `Reporting` holds."""
    to = click.option(
        "--report-to",
        type=click.Choice([TENSORBOARD]),
        help=_("Follow the training to its end and write its curves for TensorBoard."),
    )
    folder = click.option(
        "--log-dir",
        metavar="FOLDER",
        help=_("Where to; by default tensorboard/ in the job's folder."),
    )
    return to(folder(function))


@dataclass(frozen=True, slots=True)
class Reporting:
    """The values of --report-to and --log-dir; `report_to` None: nothing is written."""

    report_to: str | None = None
    log_dir: str | None = None

    def require(self) -> None:
        """Raise Unreachable where TensorBoard is needed and not installed."""
        if self.report_to:
            from safetrain.tensorboard import require

            require()

    @contextmanager
    def opened(self, session: Session, job: Job) -> Iterator[EventSink]:
        """Open a sink for the job's events, in a folder of its own. Raises NotAllowed."""
        if not self.report_to:
            yield _ignore
            return
        from safetrain.tensorboard import open_writer

        default = str(output_here(session, job) / TENSORBOARD)
        folder = absolute(self.log_dir) if self.log_dir else default
        with open_writer(Path(folder) / f"job-{job.id}") as writer:
            text = _("See the curves with: tensorboard --logdir {path}")
            session.note(text.format(path=short_path(folder)))
            yield writer.take


def follow_to_end(
    session: Session,
    daemon: Daemon,
    job: Job,
    *,
    refresh: float = 1.0,
    after: int = 0,
    quiet: bool = False,
    reporting: Reporting = Reporting(),
) -> int:
    """Follow a job to its end and return the exit code for it; `quiet`: print only the end."""
    quiet = quiet or (session.quiet and not session.json)
    with reporting.opened(session, job) as report:
        if not (session.json or quiet) and _can_draw():
            from safetrain.terminal.live_view import live

            return _code(live(daemon, job, refresh, report))
        follower = Follower(daemon, job.id, after)
        show = _ignore if quiet else _as_json if session.json else _as_line
        for events, _up_to_date in follower.batches():
            for event in events:
                report(event)
                show(event)
    if follower.state and not (session.terse or quiet):
        ended = daemon.call(daemon.jobs.Get, JobRequest(id=job.id), again=True)
        if ended.HasField("evaluation"):
            echo("\n".join(head_lines(ended.evaluation)))
        for text in next_steps(ended):
            session.note(text)
    if quiet and follower.state:
        state = word(STATES, follower.state)
        session.note(_("Job {id}: {state}").format(id=job.id, state=state))
    return _code(follower.state)


def _can_draw() -> bool:
    terminal = sys.stdout.isatty() and sys.stdin.isatty()
    return terminal and os.environ.get("TERM") not in _NO_CURSOR


def _ignore(event: Event) -> None:
    del event


def _as_line(event: Event) -> None:
    echo(line(event))


def _as_json(event: Event) -> None:
    from safetrain.views.json_output import event_to_json, write

    write(event_to_json(event))


def _code(state: JobState | None) -> int:
    """Return the exit code; `state` None: the user left while the job goes on."""
    return EXIT_OK if state is None else EXIT_CODES.get(state, EXIT_FAILED)

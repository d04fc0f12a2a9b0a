"""`safetrain submit`: queue a training, and optionally wait for it or watch it."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import click

from safetrain.commands.common.follow_job import Reporting, follow_to_end, report_options
from safetrain.commands.common.job_options import (
    CommandWithSettings,
    job_options,
    sent,
    spec_of,
    split_if_asked,
)
from safetrain.commands.common.job_selection import connected, output_here
from safetrain.connection import Daemon
from safetrain.echo import echo
from safetrain.int64 import Int64
from safetrain.session import Session, command
from safetrain.terminal.status_line import StatusLine
from safetrain.views.job import short_path, time_left
from safetrain.views.json_output import message_to_json, write
from safetrain.views.labels import sign
from safetrain_proto.v1.jobs_pb2 import Job, JobSpec, SubmitRequest, SubmitResponse
from safetrain_shared.errors import EXIT_OK, InvalidInput
from safetrain_shared.findings import Status
from safetrain_shared.i18n import marked, translate
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import say
from safetrain_shared.remote.host_list import ANY
from safetrain_shared.wire import finding_from_wire

_SUBMIT_SECONDS = 300.0  # the daemon reads the data files first
_OUTCOMES = {
    SubmitResponse.OUTCOME_QUEUED: marked("Job {id} is queued."),
    SubmitResponse.OUTCOME_ATTACHED: marked("Job {id} is the same and was already there."),
    SubmitResponse.OUTCOME_CONTINUED: marked("Job {id} continues where it was interrupted."),
}


@command(
    _(
        "Queues a training with the recommended settings; --config and --set override them. "
        "Submitting the output folder of an interrupted training again continues it."
    ),
    example=(
        "safetrain submit --watch\n"
        "safetrain submit dados --model demo --output farense\n"
        "safetrain submit perguntas.csv --split\n"
        "safetrain submit --model demo --output farense --set num_epochs=2 --name farense\n"
        "safetrain submit dados --model demo --output farense --host any --fetch"
    ),
    cls=CommandWithSettings,
)
@job_options
@click.option(
    "--questions",
    metavar="FILE",
    help=_(
        "Ask these once it is trained, and say whether it helped; by default the questions.jsonl "
        "beside the training data."
    ),
)
@click.option("--name", default="", help=_("A name for people."))
@click.option(
    "--overnight",
    is_flag=True,
    help=_("Train in segments with rests, and go on by itself after whatever happens."),
)
@click.option("--fresh", is_flag=True, help=_("Train anew; an old run there is moved aside."))
@click.option("--after", metavar="JOB", type=Int64(0), default=0, help=_("Start after this job."))
@click.option("--wait", is_flag=True, help=_("Wait for the end; the exit code tells it."))
@click.option("--watch", is_flag=True, help=_("Watch the training, as `safetrain watch` does."))
@click.option(
    "--fetch",
    is_flag=True,
    help=_("With --host: wait for the end, then bring the results here, as `safetrain fetch`."),
)
@report_options
def submit(
    session: Session,
    fresh: bool,
    after: int,
    wait: bool,
    watch: bool,
    fetch: bool,
    report_to: str | None,
    log_dir: str | None,
    **given: Any,
) -> int:
    """Print the job's id, then follow it as --wait, --watch or --report-to require."""
    reporting = Reporting(report_to, log_dir)
    reporting.require()
    if fetch and not session.host:
        raise InvalidInput("host.fetch_from_where")
    spec = spec_of(session, **given, evaluates=True)
    status_line, local = StatusLine(silent=session.terse), spec.train
    if session.host == ANY:
        session = _chosen(session, spec, status_line, split=given["split"] is not None)
    with connected(session) as daemon:
        try:
            spec = sent(session, daemon, spec, status_line)
            split_if_asked(session, daemon, spec, given["split"], local)
            request = SubmitRequest(
                spec=spec, idempotency_key=uuid.uuid4().hex, fresh=fresh, after=after
            )
            status_line.show("inspecting")
            answer = daemon.call(daemon.jobs.Submit, request, seconds=_SUBMIT_SECONDS, again=True)
        finally:
            status_line.clear()
        _show(session, answer)
        if not (session.json or wait or watch or fetch or report_to):
            session.note("  " + _("Watch it with: safetrain watch {id}").format(id=answer.job.id))
        if not (wait or watch or report_to or fetch):
            return EXIT_OK
        code = _follow(session, daemon, answer.job, reporting, quiet=not watch)
        if fetch and session.host:
            from safetrain.remote.fetch import fetch as bring

            folder = output_here(session, answer.job)
            bring(daemon, answer.job.id, folder, lambda done: status_line.show("fetching", done))
            status_line.clear()
            session.note(_("The results are in {folder}.").format(folder=short_path(str(folder))))
        return code


def _chosen(session: Session, spec: JobSpec, status_line: StatusLine, *, split: bool) -> Session:
    """Return the session with the host that would end the training soonest; say why it is that.

    Raises InvalidInput with `split`: what is split off is not there to be judged. Raises Blocked
    where no host would train it.
    """
    from safetrain.remote.any_host import forecasts, soonest
    from safetrain.views.forecasts import choice_line, forecast_line

    if split:
        raise InvalidInput("host.any_split")
    status_line.show("probing")
    try:
        found = forecasts(lambda host: connected(replace(session, host=host)), spec)
    finally:
        status_line.clear()
    for forecast in found:
        session.note(f"  {forecast_line(forecast)}")
    chosen = soonest(found)
    session.note(choice_line(chosen))
    return replace(session, host=chosen.host)


def _show(session: Session, answer: SubmitResponse) -> None:
    """Print the job's id on standard output, remarks about it on standard error."""
    if session.json:
        write(message_to_json(answer) | ({"host": session.host} if session.host else {}))
        return
    job = answer.job
    text = translate(_OUTCOMES.get(answer.outcome, _OUTCOMES[SubmitResponse.OUTCOME_QUEUED]))
    left = time_left(job)
    echo(text.format(id=job.id) + (f" ({left})" if left else ""))
    for message in answer.findings:
        finding = finding_from_wire(message)
        if finding.status in (Status.WARNING, Status.FAILED, Status.INFO):
            session.note(f"  {sign(finding.status)} {say(finding, fallback=message.text)}")


def _follow(
    session: Session, daemon: Daemon, job: Job, reporting: Reporting, *, quiet: bool
) -> int:
    try:
        return follow_to_end(session, daemon, job, quiet=quiet, reporting=reporting)
    except KeyboardInterrupt:
        text = _("Job {id} goes on. Watch it with: safetrain watch {id}")
        session.note(text.format(id=job.id))
        raise

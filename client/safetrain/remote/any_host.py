"""Chooses the host where a training would end soonest, by each machine's own forecast.

A forecast is the host's queue, then its preflight of this job: nothing is scheduled over machines,
and a job that was submitted stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from safetrain.connection import Daemon
from safetrain.remote.job_spec import for_host
from safetrain.remote.local_files import is_here
from safetrain.views.forecasts import Forecast
from safetrain_proto.v1.jobs_pb2 import Job, JobSpec, JobState, ListJobsRequest
from safetrain_proto.v1.preflight_pb2 import PreflightRequest
from safetrain_shared.errors import Blocked, SafetrainError, Unreachable
from safetrain_shared.findings import Finding, Status
from safetrain_shared.messages import say
from safetrain_shared.remote.host_list import read
from safetrain_shared.wire import finding_from_wire, plan_from_wire

_LIVE = (
    JobState.JOB_STATE_QUEUED,
    JobState.JOB_STATE_CHECKING,
    JobState.JOB_STATE_RUNNING,
    JobState.JOB_STATE_INTERRUPTED,
)
Connect = Callable[[str], Daemon]  # takes a host's name, empty for this machine


def forecasts(connect: Connect, spec: JobSpec) -> list[Forecast]:
    """Return the forecast of this machine and of every named host, all asked at once.

    The data are sent to each host, which a host that has them already is spared.
    """
    names = ["", *read()]
    with ThreadPoolExecutor(len(names)) as threads:
        return list(threads.map(lambda name: _forecast(connect, name, spec), names))


def soonest(found: Sequence[Forecast]) -> Forecast:
    """Return the forecast with the earliest end, then the earliest start; what is not known counts
    as latest, and of equals the first is taken. Raises Blocked where no host would train it.
    """
    willing = [forecast for forecast in found if not forecast.refusal]
    if not willing:
        raise Blocked("host.none_of_any", reason=found[0].refusal if found else "")
    late = float("inf")
    return min(
        willing,
        key=lambda one: (
            late if one.end is None else one.end,
            late if one.start is None else one.start,
        ),
    )


def _forecast(connect: Connect, host: str, spec: JobSpec) -> Forecast:
    try:
        with connect(host) as daemon:
            request = ListJobsRequest(ended_limit=1)
            start = queue_seconds(daemon.call(daemon.jobs.List, request, again=True).jobs)
            if host and is_here(spec.model):  # a large folder is sent to the chosen host alone
                return Forecast(host, start)
            return _judged(daemon, for_host(daemon, spec, lambda _: None), start)
    except SafetrainError as error:
        return Forecast(host, refusal=str(error))


def queue_seconds(jobs: Sequence[Job]) -> float | None:
    """Return the seconds until a job that is queued now would start; None: not known.

    A job that is paused is not waited for.
    """
    live = [job for job in jobs if job.state in _LIVE]
    if not all(job.HasField("eta_seconds") for job in live):
        return None
    return max((job.eta_seconds for job in live), default=0.0)


def _judged(daemon: Daemon, spec: JobSpec, start: float | None) -> Forecast:
    """Return the forecast by a preflight. A model that is not on the host is not fetched for it."""
    blocking: Finding | None = None
    with closing(daemon.stream(daemon.preflight.Run, PreflightRequest(spec=spec))) as events:
        for event in events:
            if event.progress.phase == "downloading":
                return Forecast(daemon.host, start)
            if event.HasField("finding"):
                finding = finding_from_wire(event.finding)
                if finding.blocks and finding.status is Status.FAILED:
                    blocking = blocking or finding
            if event.HasField("recommendation"):
                lasts = plan_from_wire(event.recommendation.plan).duration
                end = None if start is None or lasts <= 0 else start + lasts
                return Forecast(daemon.host, start, end)
    if blocking is None:
        raise Unreachable("host.lost", host=daemon.host)
    return Forecast(daemon.host, refusal=say(blocking))

"""Asks the daemon how the model sees a job's training data."""

from __future__ import annotations

from safetrain.connection import Daemon
from safetrain_proto.v1.data_pb2 import PreviewRequest, PreviewResponse
from safetrain_proto.v1.jobs_pb2 import JobRequest

_SAMPLES = 2
_SECONDS = 120.0  # a tokenizer is loaded, of a hub model perhaps downloaded


def preview_of_job(daemon: Daemon, number: int) -> PreviewResponse:
    """Return the first samples of a job's training file as its model sees them.

    Raises NotFound for an unknown job, and what `Preview` raises for file and model.
    """
    job = daemon.call(daemon.jobs.Get, JobRequest(id=number))
    settings = job.plan.settings if job.HasField("plan") else job.spec.settings
    request = PreviewRequest(
        path=job.spec.train,
        model=job.spec.model,
        samples=_SAMPLES,
        max_seq_length=settings.max_seq_length,
        settings=settings,
        trust_remote_code=job.spec.trust_remote_code,
    )
    return daemon.call(daemon.data.Preview, request, seconds=_SECONDS)

"""A job for another machine: its files are sent there, and its paths speak of that machine."""

from __future__ import annotations

from collections.abc import Callable

from safetrain.connection import Daemon
from safetrain.remote.local_files import LocalFiles, output_there
from safetrain_proto.v1.jobs_pb2 import JobSpec

Progress = Callable[[float], None]  # takes the share of a file that is there, 0 to 1


def for_host(daemon: Daemon, spec: JobSpec, progress: Progress) -> JobSpec:
    """Return the job with its data, and a model that is a folder here, sent to the host.

    An output folder below the current folder becomes one of the same name in ~/safetrain there;
    any other absolute path is taken as a path of the host. Raises what `send` raises.
    """
    local, found = LocalFiles(daemon, progress), JobSpec()
    found.CopyFrom(spec)
    found.model = local.model_there(spec.model)
    found.start_adapter = local.model_there(spec.start_adapter)
    found.train = local.there(spec.train)
    found.valid = local.there(spec.valid)  # empty: split off there
    if spec.evaluation.questions:
        found.evaluation.questions = local.there(spec.evaluation.questions)
    found.output = output_there(daemon, spec.output)
    return found

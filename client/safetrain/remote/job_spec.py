"""A job for another machine: its files are sent there, and its paths speak of that machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from safetrain.connection import Daemon
from safetrain.remote.upload import send
from safetrain_proto.v1.jobs_pb2 import JobSpec
from safetrain_shared.errors import InvalidInput

OUTPUTS = "safetrain"  # folder in the user's home there, for outputs named by a relative path
Progress = Callable[[float], None]  # takes the share of a file that is there, 0 to 1


def for_host(daemon: Daemon, spec: JobSpec, progress: Progress) -> JobSpec:
    """Return the job with its data sent to the host.

    An output folder below the current folder becomes one of the same name in ~/safetrain there;
    any other absolute path is taken as a path of the host. Raises InvalidInput for a model or an
    adapter that is a folder of this machine, and what `send` raises.
    """
    for folder in (spec.model, spec.start_adapter):
        if Path(folder).is_absolute() and Path(folder).exists():
            raise InvalidInput("host.folder_here", path=folder)
    found = JobSpec()
    found.CopyFrom(spec)
    found.train = send(daemon, spec.train, progress)
    if spec.valid:  # empty: split off there
        found.valid = send(daemon, spec.valid, progress)
    if spec.evaluation.questions:
        found.evaluation.questions = send(daemon, spec.evaluation.questions, progress)
    relative = os.path.relpath(spec.output)
    if not relative.startswith(".."):
        found.output = os.path.normpath(f"{daemon.remote_folder}/{OUTPUTS}/{relative}")
    return found

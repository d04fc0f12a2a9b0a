"""The folder on this machine that holds a job's results."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetrain_proto.v1.jobs_pb2 import Job
from safetrain_shared.paths import STATE, Home


def local_folder(job: Job, host: str = "") -> Path:
    """Return the job's output folder.

    For a job of another machine, and where the output folder holds another training by now, it is
    `job-ID` in the current folder.
    """
    return Path(f"job-{job.id}" if host or is_replaced(job) else job.spec.output)


def is_replaced(job: Job) -> bool:
    """Return whether the output folder holds the training of another job, or of another home."""
    try:
        found: Any = json.loads((Path(job.spec.output) / STATE).read_text("utf-8"))
        owner, home = int(found["job"]), str(found.get("home", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    if owner != job.id:
        return True
    ours = Path(job.log_path).parent.parent.parent  # HOME/runs/ID/worker.log
    named = home and Home(Path(home)).database.exists()  # else the home was moved
    return bool(named) and os.path.realpath(home) != os.path.realpath(ours)

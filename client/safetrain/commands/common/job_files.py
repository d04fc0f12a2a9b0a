"""What `plot` and `report` do alike: pick the job, read its story so far, write files whole."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetrain.commands.common.job_selection import current
from safetrain.connection import Daemon
from safetrain.gc_pause import gc_paused
from safetrain_proto.v1.events_pb2 import WatchRequest
from safetrain_proto.v1.jobs_pb2 import Job
from safetrain_shared.errors import NoRoom, NotAllowed
from safetrain_shared.events import Event
from safetrain_shared.i18n import translate as _
from safetrain_shared.wire import event_from_wire


def job_to_draw(jobs: Iterable[Job], wanted: int | None) -> Job:
    """The job of that id; else the one at work, or the newest that ever was. Raises NotFound.

    One that only waits is passed over where another has something to show.
    """
    known = list(jobs)
    return current([job for job in known if job.attempt or job.id == wanted] or known, wanted)


def story(daemon: Daemon, job: Job) -> list[Event]:
    """All that has happened to the job until now."""
    request = WatchRequest(job_id=job.id, follow=False)
    batches = daemon.stream(daemon.events.Watch, request)
    with gc_paused():
        return [event_from_wire(message) for batch in batches for message in batch.events]


def title(job: Job) -> str:
    """Job 3 · farense · Mistral-7B-Instruct-v0.3-4bit."""
    model = job.spec.model.rstrip("/").rpartition("/")[2]
    return " · ".join(filter(None, [_("Job {id}").format(id=job.id), job.spec.name, model]))


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Writes each file whole or not at all, making the folders that it needs.

    Raises NoRoom where the disk is full, NotAllowed where it may not be written.
    """
    for path, content in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom("disk.full", path=str(path)) from None
            raise NotAllowed("path.unwritable", path=str(path), reason=error.strerror) from None


def _replace(path: Path, content: bytes) -> None:
    """Through a file beside it, so that nobody who opens `path` sees half of it."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        Path(beside).chmod(0o666 & ~mask)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise

"""Splits a validation file off the training data of a job that has none.

The files are written to a folder of the job's output folder that is named by a hash of the data:
the same data give the same files, to the bit, and other data never overwrite them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from safetrain.connection import Daemon
from safetrain_proto.v1.data_pb2 import PrepareEvent, PrepareRequest
from safetrain_proto.v1.jobs_pb2 import JobSpec
from safetrain_shared.errors import InvalidInput, NotAllowed, NotFound
from safetrain_shared.paths import SPLIT

_SEED = 0
OnEvent = Callable[[PrepareEvent], None]


def split_data(
    daemon: Daemon,
    spec: JobSpec,
    share: float,
    on_event: OnEvent = lambda _event: None,
    *,
    local: str = "",
) -> None:
    """Split `spec.train` into a training and a validation file, and set them in `spec`.

    `share`: the validation samples, 0 to 1. `on_event` receives the events of `prepare`. `local`:
    the training file as this machine knows it, where the daemon's is another. Raises NotFound and
    NotAllowed for the file, InvalidInput where no sample can be held out.
    """
    if not 0 < share < 1:
        raise InvalidInput("client.split_share", share=share)
    folder = Path(spec.output) / f"{SPLIT}{_digest(local or spec.train, share)}"
    request = PrepareRequest(paths=[spec.train], output=str(folder), valid_share=share, seed=_SEED)
    counts: dict[str, int] = {}
    for event in daemon.stream(daemon.data.Prepare, request):
        on_event(event)
        if event.HasField("prepared"):
            counts = dict(event.prepared.counts)
    if not counts.get("valid.jsonl"):
        raise InvalidInput("prepare.all_alike", path=spec.train)
    spec.train, spec.valid = str(folder / "train.jsonl"), str(folder / "valid.jsonl")


def _digest(path: str, share: float) -> str:
    """Return 8 hexadecimal digits of the hash of the file's content and the share."""
    found = hashlib.sha256(f"{share!r} {_SEED}\n".encode())
    try:
        with Path(path).open("rb") as file:
            while chunk := file.read(1 << 20):
                found.update(chunk)
    except FileNotFoundError:
        raise NotFound("path.missing", path=path) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotAllowed("path.unreadable", path=path, reason=reason) from None
    return found.hexdigest()[:8]

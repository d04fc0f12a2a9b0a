"""Makes the validation file of a job that has none: a share of its samples.

The files go to a folder of the job's output folder whose name has a hash of what they are made
from: the same data give the same files, to the bit, and other data never replace them.
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
Tell = Callable[[PrepareEvent], None]


def made(daemon: Daemon, spec: JobSpec, share: float, tell: Tell = lambda _event: None) -> None:
    """Make training and validation file of `spec.train`, and name them in `spec`.

    `share`: of the samples, for validation. `tell` is given what `prepare` says meanwhile. Raises
    NotFound and NotAllowed for the file, and InvalidInput where nothing of it can be kept apart.
    """
    if not 0 < share < 1:
        raise InvalidInput("client.split_share", share=share)
    folder = Path(spec.output) / f"{SPLIT}{_digest(spec.train, share)}"
    request = PrepareRequest(paths=[spec.train], output=str(folder), valid_share=share, seed=_SEED)
    counts: dict[str, int] = {}
    for event in daemon.stream(daemon.data.Prepare, request):
        tell(event)
        if event.HasField("prepared"):
            counts = dict(event.prepared.counts)
    if not counts.get("valid.jsonl"):
        raise InvalidInput("prepare.all_alike", path=spec.train)
    spec.train, spec.valid = str(folder / "train.jsonl"), str(folder / "valid.jsonl")


def _digest(path: str, share: float) -> str:
    """Eight hexadecimal digits of the file's content and how it is divided."""
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

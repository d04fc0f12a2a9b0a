"""The worker role `fetch`: downloads a hub repository, without the GPU lease.

Reads `fetch_request.json` in its run folder: {"repository", "dry_run"}; with `dry_run`, nothing is
downloaded. Writes {"path"} (empty after a dry run) or {"error"} to `probe.json`, and progress lines
to `probe.json.partial`: first {"bytes"}, the size of the download, then {"done"}, the share of it
that has arrived.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetrain_shared.errors import SafetrainError, error_to_dict
from safetrain_shared.paths import RunFolder
from safetraind.storage.durable import write_json
from safetraind.worker.hub import bytes_in_cache, bytes_to_download, snapshot

_POLL_SECONDS = 0.5

EmitEvent = Callable[[dict[str, Any]], None]


def main(arguments: list[str]) -> int:
    """Download; an error of ours is a result, and the exit code still 0."""
    run = RunFolder(Path(arguments[0]))
    request = json.loads((run.root / "fetch_request.json").read_text(encoding="utf-8"))
    with run.probe.with_name(f"{run.probe.name}.partial").open("w", encoding="utf-8") as file:

        def emit(line: dict[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        try:
            result: dict[str, Any] = {
                "path": _fetch(request["repository"], request.get("dry_run", False), emit)
            }
        except SafetrainError as error:
            result = {"error": error_to_dict(error)}
    write_json(run.probe, result)
    return 0


def _fetch(repository: str, dry_run: bool, emit: EmitEvent) -> str:
    needed = bytes_to_download(repository)
    emit({"bytes": needed})
    if dry_run:
        return ""
    with _reporting_progress(repository, needed, emit):
        folder = snapshot(repository)
    emit({"done": 1.0})
    return str(folder)


@contextmanager
def _reporting_progress(repository: str, needed: int, emit: EmitEvent) -> Iterator[None]:
    """Emit the share that has arrived while the block runs, by the size of the cache."""
    before, over = bytes_in_cache(repository), threading.Event()

    def poll() -> None:
        while needed and not over.wait(_POLL_SECONDS):
            arrived = bytes_in_cache(repository) - before
            emit({"done": min(1.0, max(0, arrived) / needed)})

    poller = threading.Thread(target=poll, daemon=True)
    poller.start()
    try:
        yield
    finally:
        over.set()
        poller.join()

"""The worker role `fetch`: brings a hub repository onto this machine, without the GPU lease.

Reads `fetch_request.json` in its run folder: {"repository"}. Writes {"path"} or {"error"} to
`probe.json`, and meanwhile lines to `probe.json.partial`: {"bytes"}, what is to come, then
{"done"}, the share of it that is here.
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
from safetraind.worker.hub import bytes_in_cache, bytes_to_come, snapshot

_LOOK_SECONDS = 0.5

EmitEvent = Callable[[dict[str, Any]], None]


def main(arguments: list[str]) -> int:
    """Downloads; what went wrong is a result, not a failure."""
    run = RunFolder(Path(arguments[0]))
    request = json.loads((run.root / "fetch_request.json").read_text(encoding="utf-8"))
    with run.probe.with_name(f"{run.probe.name}.partial").open("w", encoding="utf-8") as file:

        def tell(line: dict[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        try:
            result: dict[str, Any] = {"path": str(_fetch(request["repository"], tell))}
        except SafetrainError as error:
            result = {"error": error_to_dict(error)}
    write_json(run.probe, result)
    return 0


def _fetch(repository: str, tell: EmitEvent) -> Path:
    needed = bytes_to_come(repository)
    tell({"bytes": needed})
    with _looking(repository, needed, tell):
        folder = snapshot(repository)
    tell({"done": 1.0})
    return folder


@contextmanager
def _looking(repository: str, needed: int, tell: EmitEvent) -> Iterator[None]:
    """Tells how much has come while the block runs: the hub's own bars are for terminals."""
    before, over = bytes_in_cache(repository), threading.Event()

    def look() -> None:
        while needed and not over.wait(_LOOK_SECONDS):
            come = bytes_in_cache(repository) - before
            tell({"done": min(1.0, max(0, come) / needed)})

    looker = threading.Thread(target=look, daemon=True)
    looker.start()
    try:
        yield
    finally:
        over.set()
        looker.join()

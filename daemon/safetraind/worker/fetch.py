"""The worker role `fetch`: brings a hub repository onto this machine, without the GPU lease.

Reads `fetch_request.json` in its run folder: {"repository"}. Writes {"path"} or {"error"} to
`probe.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetrain_shared.errors import SafetrainError, error_to_dict
from safetrain_shared.paths import RunFolder
from safetraind.files.durable import write_json
from safetraind.worker.hub import snapshot


def main(arguments: list[str]) -> int:
    """Downloads; what went wrong is a result, not a failure."""
    run = RunFolder(Path(arguments[0]))
    request = json.loads((run.root / "fetch_request.json").read_text(encoding="utf-8"))
    try:
        result: dict[str, Any] = {"path": str(snapshot(request["repository"]))}
    except SafetrainError as error:
        result = {"error": error_to_dict(error)}
    write_json(run.probe, result)
    return 0

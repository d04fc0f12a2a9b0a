"""Runs real workers as child processes, without a daemon: what `course` needs of a launcher."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_number = itertools.count(1)


@dataclass(frozen=True)
class Ended:
    exit: Mapping[str, Any]
    result: dict[str, Any] | None
    log: str
    limit: str = ""


class DirectWorkers:
    def __init__(self, root: Path, has_lease: bool = True, environment: Mapping[str, str] = {}):
        self.root = root
        self.has_lease = has_lease
        self.environment = dict(environment)
        self.roles: list[str] = []

    async def run_worker(self, role, request, *, lease, on_progress=None) -> Ended:
        self.roles.append(role)
        folder = self.root / f"{role}-{next(_number)}"
        folder.mkdir(parents=True)
        (folder / f"{role}_request.json").write_text(json.dumps(request))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "safetraind.worker", role, str(folder)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self.environment},
        )
        _, errors = await process.communicate()
        lines = folder / ("inspect.jsonl" if role == "inspect" else "probe.json.partial")
        if on_progress and lines.exists():
            for line in lines.read_text().splitlines():
                on_progress(json.loads(line))
        result = folder / "probe.json"
        found = json.loads(result.read_text()) if result.exists() else None
        return Ended({"code": process.returncode}, found, errors.decode())

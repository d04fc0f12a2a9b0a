"""Runs real workers as child processes, without a daemon: what a preflight needs of a launcher."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetrain_shared.codec import to_plain
from safetrain_shared.paths import RunFolder
from safetraind.storage.durable import read_json
from safetraind.storage.run_folder import KeeperNote
from safetraind.worker_messages.role import Role
from safetraind.worker_messages.worker_result import WorkerResult
from tests.openblas import preloaded

_number = itertools.count(1)


class DirectWorkers:
    def __init__(self, root: Path, has_lease: bool = True, environment: Mapping[str, str] = {}):
        self.root = root
        self.has_lease = has_lease
        self.environment = dict(environment)
        self.roles: list[str] = []

    async def run_worker(
        self,
        role: Role[Any, Any],
        request: Any,
        *,
        lease: bool,
        on_progress: Callable[[Any], None] | None = None,
    ) -> WorkerResult[Any]:
        self.roles.append(role.name)
        run = RunFolder(self.root / f"{role.name}-{next(_number)}")
        run.root.mkdir(parents=True)
        (run.root / f"{role.name}_request.json").write_text(json.dumps(to_plain(request)))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "safetraind.worker", role.name, str(run.root)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **preloaded(), **self.environment},
        )
        _, errors = await process.communicate()
        if on_progress and run.partial.exists():
            for line in run.partial.read_text().splitlines():
                on_progress(role.read_line(json.loads(line)))
        answer = role.read_result(read_json(run.probe))
        code = process.returncode or 0
        return WorkerResult(
            KeeperNote(code=max(0, code), signal=max(0, -code)), answer, errors.decode()
        )

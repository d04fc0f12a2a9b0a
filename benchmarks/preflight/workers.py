"""Starts real workers without a daemon, and watches what a training costs the machine."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetrain_shared.codec import to_plain
from safetrain_shared.events import StepDone
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import RunFolder
from safetraind import host
from safetraind.processes.worker_environment import for_computing
from safetraind.storage import documents, event_file
from safetraind.storage.durable import read_json, write_json
from safetraind.storage.job_document import DataFile, JobDocument, ModelSource
from safetraind.storage.manifest import sha256
from safetraind.storage.run_folder import KeeperNote
from safetraind.worker_messages.role import Line, Result, Role
from safetraind.worker_messages.worker_result import WorkerResult

_number = itertools.count(1)
_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training ended: its exit code, MLX's own peak, and the highest footprint seen."""

    finished: bool
    peak: int
    footprint: int
    steps: int


class Workers:
    """What a preflight needs to start workers; the machine is ours alone, so is the lease."""

    has_lease = True

    def __init__(self, root: Path) -> None:
        self._root = root

    async def run_worker(
        self,
        role: Role[Line, Result],
        request: Any,
        *,
        lease: bool,
        on_progress: Callable[[Line], None] | None = None,
    ) -> WorkerResult[Result]:
        """Runs a worker; its lines are handed on when it has ended."""
        del lease
        run = RunFolder(self._root / f"{role.name}-{next(_number)}")
        run.root.mkdir(parents=True)
        write_json(run.root / f"{role.name}_request.json", to_plain(request))
        command = _command(role.name, run)
        process = await asyncio.create_subprocess_exec(*command, env=environment())
        code = await process.wait()
        if on_progress and run.partial.exists():
            for line in run.partial.read_text().splitlines():
                on_progress(role.read_line(json.loads(line)))
        note = KeeperNote(code=max(0, code), signal=max(0, -code))
        return WorkerResult(note, role.read_result(read_json(run.probe)))


def train(spec: JobSpec, plan: Plan, root: Path) -> Trained:
    """Trains a plan to its end in a worker of its own."""
    run = RunFolder(root / f"train-{next(_number)}")
    run.root.mkdir(parents=True)
    paths = {"train": spec.train, "valid": spec.valid}
    data = {name: DataFile(path, sha256(Path(path))) for name, path in paths.items()}
    documents.write(run.spec, JobDocument(spec, ModelSource(plan.model_path), data, job=1))
    documents.write(run.plan, plan)
    write_json(run.launch, {"role": "train", "attempt": 1, "seq_floor": 0, "boot_id": ""})
    process = subprocess.Popen(_command("train", run), env=environment(), stdout=subprocess.DEVNULL)
    footprint = 0
    while process.poll() is None:
        footprint = max(footprint, host.footprint(process.pid))
        time.sleep(_SAMPLE_SECONDS)
    bodies = [read.event.body for read in event_file.read(run.events)]
    steps = [body for body in bodies if isinstance(body, StepDone)]
    peak = max((body.peak_memory for body in steps), default=0)
    outcome = getattr(bodies[-1], "outcome", "") if bodies else ""
    done = outcome == "succeeded" and process.returncode == 0
    return Trained(done, peak, footprint, steps[-1].step if steps else 0)


def environment() -> dict[str, str]:
    """As the daemon gives it to its workers."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    return for_computing({**os.environ, **offline})


def _command(role: str, run: RunFolder) -> tuple[str, ...]:
    return sys.executable, "-m", "safetraind.worker", role, str(run.root)

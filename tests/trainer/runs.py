"""Run folders made on the spot, and the training worker started on them as a real process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetrain_shared.evaluations import EvaluationSpec
from safetrain_shared.events import Body, Notice, Outcome, PhaseChanged, StepDone
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import RunFolder
from safetrain_shared.settings import TrainingSettings
from safetraind.storage import documents, event_file
from safetraind.storage.job_document import DataFile, JobDocument, ModelSource
from safetraind.storage.manifest import sha256
from tests.openblas import preloaded

SMALL: dict[str, Any] = {
    "batch_size": 2,
    "gradient_accumulation": 2,
    "max_seq_length": 192,
    "learning_rate": 1e-2,
    "num_epochs": 2,
    "lora_layers": 2,
    "save_steps": 3,
    "eval_steps": 4,
    "log_steps": 1,
}


@dataclass(frozen=True)
class Run:
    """A run folder and the output folder of its job."""

    folder: RunFolder
    output: Path

    def start(
        self, attempt: int = 1, *, hold: int | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start the worker; its output goes to worker.log.

        With `hold` it stands still once that many optimizer steps are done: see `wait_for_hold`.
        """
        command = [sys.executable, "-m", "safetraind.worker", "train", str(self.folder.root)]
        if hold is not None:
            command[2:4] = ["tests.trainer.held_worker"]
            command.append(str(hold))
            for name in ("held", "go"):
                (self.folder.root / name).unlink(missing_ok=True)
        launch = {"role": "train", "attempt": attempt, "seq_floor": 0, "boot_id": "test"}
        self.folder.launch.write_text(json.dumps(launch))
        with self.folder.log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, **preloaded(), **environment},
            )

    def finish(self, attempt: int = 1) -> Outcome:
        """Run the worker to its end and return what it said last."""
        code = self.start(attempt).wait(120)
        assert code == 0, self.folder.log.read_text()
        outcome = self.bodies()[-1]
        assert isinstance(outcome, Outcome)
        return outcome

    def bodies(self) -> list[Body]:
        """All events so far."""
        bodies = [read.event.body for read in event_file.read(self.folder.events)]
        return [body for body in bodies if body is not None]

    def of(self, kind: type) -> list[Any]:
        """The events of one kind."""
        return [body for body in self.bodies() if isinstance(body, kind)]

    def replan(self, **settings: Any) -> None:
        """Change the plan, as the daemon does after a fallback."""
        plan = json.loads(self.folder.plan.read_text())
        plan["settings"] |= settings
        self.folder.plan.write_text(json.dumps(plan))

    def checkpoints(self) -> list[str]:
        """The names of the checkpoints in the output folder."""
        return sorted(folder.name for folder in self.output.glob("checkpoint_*"))

    def adapter(self, folder: str = "adapters") -> bytes:
        """The adapter's weights in a folder of the output folder."""
        return (self.output / folder / "adapters.safetensors").read_bytes()

    def codes(self) -> list[str]:
        """The codes of all notices so far."""
        return [notice.finding.code for notice in self.of(Notice)]

    def wait_for(self, kind: type, count: int = 1, seconds: float = 120) -> None:
        """Return once the worker has written `count` events of a kind."""
        self._wait(lambda: len(self.of(kind)) >= count, seconds)

    def wait_for_moment(self, process: subprocess.Popen[bytes], moment: str, before: int) -> None:
        """Return once `process` does `moment`, a phase or `step`, in what it wrote after the first
        `before` events, or has ended.
        """

        def reached() -> bool:
            new = self.bodies()[before:]
            phases = [body.phase for body in new if isinstance(body, PhaseChanged)]
            stepped = any(isinstance(body, StepDone) for body in new)
            return moment in phases or (moment == "step" and stepped)

        self._wait(lambda: process.poll() is not None or reached(), 120)

    def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.folder.log.read_text()
            time.sleep(0.01)

    def ask_for(self, wish: str) -> None:
        """Leave the intent that the daemon leaves."""
        new = self.folder.intent.with_suffix(".new")
        new.write_text(wish)
        new.replace(self.folder.intent)

    def wait_for_hold(self) -> None:
        """Return once a worker that was started with `hold` stands still; `let_go` ends that."""
        self._wait((self.folder.root / "held").exists, 120)

    def let_go(self) -> None:
        """Let a worker that was started with `hold` go on."""
        (self.folder.root / "go").touch()

    def ask(self, text: str, **options: Any) -> Iterator[dict[str, Any]]:
        """Ask the worker, as the daemon does; the replies come as they are read."""
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(60)
        line.connect(str(self.folder.socket))
        question = {"messages": [{"role": "user", "content": text}], **options}
        line.sendall(json.dumps(question).encode() + b"\n")
        return _replies(line)

    def json(self, name: str) -> Any:
        """A JSON file of the output folder."""
        return json.loads((self.output / name).read_text(encoding="utf-8"))


def make_run(
    root: Path,
    model: Path,
    data: tuple[Path, Path],
    *,
    seed: int = 7,
    validated: bool = True,
    evaluation: EvaluationSpec | None = None,
    **settings: Any,
) -> Run:
    """A run folder as the daemon makes it, with `settings` over `SMALL`.

    Without `validated` the job has no validation set. `evaluation`: what it asks for at its end.
    """
    folder, output = RunFolder(root / "runs" / "1"), root / "out"
    folder.root.mkdir(parents=True)
    complete = TrainingSettings(**{**SMALL, **settings})
    files = {"train": data[0], "valid": data[1]} if validated else {"train": data[0]}
    valid = str(files.get("valid", ""))
    paths = (str(model), str(data[0]), valid, str(output))
    spec = JobSpec(*paths, settings=settings, evaluation=evaluation)
    plan = Plan(complete, str(model))
    known = {name: DataFile(str(file), sha256(file)) for name, file in files.items()}
    documents.write(folder.spec, JobDocument(spec, ModelSource(str(model)), known, seed, job=1))
    documents.write(folder.plan, plan)
    return Run(folder, output)


def _replies(line: socket.socket) -> Iterator[dict[str, Any]]:
    with line, line.makefile(encoding="utf-8") as replies:
        yield from map(json.loads, replies)


def flip_a_bit(file: Path) -> None:
    """Damage a file so that its size doesn't tell."""
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)

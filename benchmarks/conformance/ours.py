"""Our trainer in the suite's hands: the worker's own loop, its steps watched."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from mlx.utils import tree_flatten
from safetensors.numpy import load_file

from benchmarks.conformance.material import Material
from benchmarks.conformance.trainer import SETTINGS, Report, flip_a_bit
from safetrain_shared.events import CheckpointSaved, Evaluated, Notice, StepDone
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import ADAPTERS, SUMMARY, RunFolder
from safetrain_shared.settings import TrainingSettings
from safetraind.storage import documents, event_file
from safetraind.storage.job_document import DataFile, JobDocument, ModelSource
from safetraind.storage.manifest import sha256
from safetraind.storage.run_folder import Launch
from safetraind.worker.training import prepare, task, train
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.step import Stepped, Stepper

_PATIENCE_SECONDS = 120.0


class Ours:
    """`safetraind.worker.training.train`."""

    name = "safetrain"

    def train(
        self,
        folder: Path,
        material: Material,
        *,
        kills: Sequence[int] | None = None,
        damage: bool = False,
        **settings: Any,
    ) -> Report:
        """See `Trainer.train`."""
        run = run_folder(folder, material, SETTINGS | {"log_steps": 1} | settings)
        report = Report(adapter=folder / "out" / ADAPTERS)
        if kills is not None:
            _train_and_kill(run, kills, damage)
        else:
            _train_here(run, report)
        _tell(run, report)
        return report


def _train_here(run: RunFolder, report: Report) -> None:
    handler = signal.getsignal(signal.SIGTERM)  # the worker takes it over; it has no process
    with mock.patch.object(prepare, "Stepper", _watching(report)):
        outcome = train.train(task.read(run), EventSink(run, Launch()))
    signal.signal(signal.SIGTERM, handler)
    assert outcome.outcome in ("succeeded", "failed"), outcome


def _watching(report: Report) -> type[Stepper]:
    """A stepper that tells `report` what it is given."""
    real = computed = 0

    class Watching(Stepper):
        def step(self, window: Sequence[Batch], number: int, learning_rate: float) -> Stepped:
            nonlocal real, computed
            done = super().step(window, number, learning_rate)
            report.micro_batches += [list(batch.samples) for batch in window]
            report.learned += done.learned
            real += done.tokens
            computed += sum(batch.inputs.size for batch in window)
            report.padding = 1 - real / computed
            weights = dict(tree_flatten(self.model.trainable_parameters()))
            report.weights = {name: np.array(value) for name, value in weights.items()}
            return done

    return Watching


def _train_and_kill(run: RunFolder, kills: Sequence[int], damage: bool) -> None:
    """A worker for each kill, and one that finishes. `damage`: of the checkpoint saved last."""
    for step in kills:
        assert _work(run, step) == -signal.SIGKILL, run.log.read_text()
        if damage:
            saved = [body for body, _ in _events(run) if isinstance(body, CheckpointSaved)]
            flip_a_bit(Path(saved[-1].path) / "optimizer.safetensors")
    assert _work(run) == 0, run.log.read_text()


def _work(run: RunFolder, kill: int = 0) -> int:
    """The exit code of a worker of its own, killed within the window after step `kill`."""
    command = [sys.executable, "-m", "benchmarks.conformance.killed", str(run.root), str(kill)]
    with run.log.open("ab") as log:
        return subprocess.run(command, stdout=log, stderr=log, timeout=_PATIENCE_SECONDS).returncode


def _events(run: RunFolder) -> list[tuple[Any, float]]:
    """Each event and its time."""
    return [(read.event.body, read.event.time) for read in event_file.read(run.events)]


def _tell(run: RunFolder, report: Report) -> None:
    """What the run's files say. A step or evaluation that was done again counts once, the last."""
    bodies = [body for body, _ in _events(run)]
    steps = {body.step: body for body in bodies if isinstance(body, StepDone)}
    evaluations = {
        body.step: body.loss for body in bodies if isinstance(body, Evaluated) and body.step
    }
    report.losses = [body.loss for body in steps.values()]
    report.rates = [body.learning_rate for body in steps.values()]
    report.evaluations = list(evaluations.values())
    report.warnings = [body.finding.code for body in bodies if isinstance(body, Notice)]
    summary = json.loads((report.adapter.parent / SUMMARY).read_text())
    report.left_out, report.cut = summary["samples_left_out"], summary["samples_cut"]
    saved = [Path(body.path) for body in bodies if isinstance(body, CheckpointSaved)]
    for folder in [folder for folder in saved if folder.is_dir()][-1:]:
        report.weights = report.weights or load_file(folder / "adapters.safetensors")
        report.optimizer = load_file(folder / "optimizer.safetensors")


def run_folder(folder: Path, material: Material, settings: dict[str, Any]) -> RunFolder:
    """The run folder that the daemon would make."""
    run = RunFolder(folder / "run")
    run.root.mkdir(parents=True)
    files = material.write(folder / "data")
    spec = JobSpec(str(material.model), str(files[0]), str(files[1]), str(folder / "out"))
    data = {
        name: DataFile(str(file), sha256(file))
        for name, file in zip(("train", "valid"), files, strict=True)
    }
    source, seed = ModelSource(str(material.model)), settings["seed"]
    documents.write(run.spec, JobDocument(spec, source, data, seed, job=1))
    documents.write(run.plan, Plan(TrainingSettings(**settings), str(material.model)))
    return run

"""Our trainer in the suite's hands: the worker's own loop, its steps watched."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from mlx.utils import tree_flatten

from benchmarks.conformance.material import Material
from benchmarks.conformance.trainer import SETTINGS, Report
from safetrain_shared.events import Evaluated, StepDone
from safetrain_shared.jobs import JobSpec, Plan, to_dict
from safetrain_shared.paths import RunFolder
from safetrain_shared.settings import TrainingSettings
from safetraind.files import eventlog
from safetraind.worker.training import task, train
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.link import Link
from safetraind.worker.training.step import Stepped, Stepper

OWN: dict[str, Any] = {"log_steps": 1, "save_steps": 1}


class Killed(Exception):
    """Stands for a kill: nothing of the trainer runs any more."""


class Ours:
    """`safetraind.worker.training.train`."""

    name = "safetrain"

    def train(
        self, folder: Path, material: Material, *, kill_after: int = 0, **settings: Any
    ) -> Report:
        """See `Trainer.train`."""
        run = run_folder(folder, material, SETTINGS | OWN | settings)
        report = Report()
        handler = signal.getsignal(signal.SIGTERM)  # the worker takes it over; it has no process
        for last_step in [kill_after, 0] if kill_after else [0]:
            watching = _watching(report, last_step)
            with mock.patch.object(train, "Stepper", watching):
                try:
                    outcome = train.train(task.read(run), Link(run, {}))
                    assert outcome.outcome in ("succeeded", "failed"), outcome
                except Killed:
                    continue
        signal.signal(signal.SIGTERM, handler)
        bodies = [read.event.body for read in eventlog.read(run.events)]
        steps = {body.step: body for body in bodies if isinstance(body, StepDone)}
        report.losses = [body.loss for body in steps.values()]
        report.rates = [body.learning_rate for body in steps.values()]
        report.evaluations = [body.loss for body in bodies if isinstance(body, Evaluated)]
        return report


def _watching(report: Report, last_step: int) -> type[Stepper]:
    """A stepper that tells `report` what it is given, and dies after `last_step`."""
    real = computed = 0

    class Watching(Stepper):
        def step(self, window: Sequence[Batch], number: int, learning_rate: float) -> Stepped:
            nonlocal real, computed
            if last_step and number == last_step:
                raise Killed
            done = super().step(window, number, learning_rate)
            report.micro_batches += [list(batch.samples) for batch in window]
            report.learned += done.learned
            real += done.tokens
            computed += sum(batch.inputs.size for batch in window)
            report.padding = 1 - real / computed
            weights = tree_flatten(self.model.trainable_parameters())
            report.weights = {name: np.array(value) for name, value in weights}
            return done

    return Watching


def run_folder(folder: Path, material: Material, settings: dict[str, Any]) -> RunFolder:
    """The run folder that the daemon would make."""
    run = RunFolder(folder / "run")
    run.root.mkdir(parents=True)
    files = material.write(folder / "data")
    spec = JobSpec(str(material.model), str(files[0]), str(files[1]), str(folder / "out"))
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    frozen = {
        "job": 1,
        "spec": to_dict(spec),
        "seed": settings["seed"],
        "data": {"train": {"sha256": hashes[0]}, "valid": {"sha256": hashes[1]}},
        "model": {"path": str(material.model)},
    }
    run.spec.write_text(json.dumps(frozen))
    plan = Plan(TrainingSettings(**settings), str(material.model))
    run.plan.write_text(json.dumps(to_dict(plan)))
    return run

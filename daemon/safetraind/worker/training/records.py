"""What a run leaves behind: events, checkpoints, the best adapter, tables, state and summary."""

from __future__ import annotations

import time
from typing import Any

from safetrain_shared.events import CheckpointSaved, Evaluated, Outcome, StepDone
from safetrain_shared.jobs import to_dict
from safetrain_shared.paths import SUMMARY, checkpoint_name
from safetraind.files import durable, training_state
from safetraind.files.training_state import TrainingState
from safetraind.worker.training import memory
from safetraind.worker.training.checkpoint import Checkpoints, publish
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.link import Link
from safetraind.worker.training.metrics import Metrics
from safetraind.worker.training.pace import Pace
from safetraind.worker.training.progress import Progress
from safetraind.worker.training.step import Stepped, Stepper
from safetraind.worker.training.task import Task

SAVE_SECONDS = 600.0


class Records:
    """Writes down how one run goes, and finds again where it stood."""

    def __init__(
        self, task: Task, link: Link, stepper: Stepper, samples: Samples, total_steps: int
    ) -> None:
        """`total_steps`: optimizer steps of the whole run."""
        self._task, self._link, self._stepper, self._samples = task, link, stepper, samples
        self._total_steps = total_steps
        self._checkpoints = Checkpoints(task)
        self._metrics = Metrics(task.run.events)
        self._saved_step = 0
        self._saved_at = time.monotonic()

    def resume(self) -> Progress:
        """Puts everything to where the newest whole checkpoint stood, or begins anew.

        A damaged checkpoint is passed over with a notice.
        """
        passed_over = False
        for folder, damage in self._checkpoints.newest_first():
            if damage:
                passed_over = True
                self._link.notice("train.checkpoint_damaged", checkpoint=folder.name, reason=damage)
                continue
            progress = self._checkpoints.load(folder, self._stepper)
            self._saved_step = progress.step
            self._republish(progress)
            self._link.notice("train.resumed", checkpoint=folder.name, step=progress.step)
            return progress
        if passed_over:
            self._link.notice("train.from_the_beginning")
        return Progress()

    def begin(self, progress: Progress) -> None:
        """Writes that the run is under way, and says once what was left out of the data."""
        if self._samples.left_out and not progress.step:
            length = self._task.plan.settings.max_seq_length
            self._link.notice("train.left_out", count=self._samples.left_out, length=length)
        self._task.output.mkdir(parents=True, exist_ok=True)
        self._write_state(progress, "training")

    def save_is_due(self) -> bool:
        """Ten minutes have passed since the last checkpoint."""
        return time.monotonic() - self._saved_at >= SAVE_SECONDS

    def log(self, progress: Progress, done: Stepped, learning_rate: float, pace: Pace) -> None:
        """Logs the step that was just done."""
        body = StepDone(
            step=progress.step,
            epoch=progress.epoch,
            step_in_epoch=progress.step_in_epoch,
            total_steps=self._total_steps,
            loss=progress.take_loss(),
            learning_rate=learning_rate,
            grad_norm=done.grad_norm,
            tokens=progress.tokens,
            tokens_per_second=pace.take_tokens_per_second(),
            peak_memory=memory.peak(),
            footprint=memory.own_footprint(),
            eta_seconds=pace.eta(self._total_steps - progress.step),
        )
        self._metrics.add(body, time.time())
        self._link.emit(body)

    def evaluated(self, progress: Progress, loss: float, samples: int) -> bool:
        """Logs an evaluation; True where it is the best so far, which must then be saved."""
        name = checkpoint_name(progress.epoch, progress.step_in_epoch)
        best = progress.judge(loss, name)
        place = (progress.step, progress.epoch, progress.step_in_epoch)
        body = Evaluated(*place, loss=loss, samples=samples, best=best)
        self._metrics.add(body, time.time())
        self._link.emit(body)
        return best

    def save(self, progress: Progress) -> None:
        """Saves a checkpoint, unless this very step is saved already, and what goes with it.

        Raises OSError, e.g. on a full disk.
        """
        if progress.step == self._saved_step:
            return
        self._link.phase("saving")
        start = time.perf_counter()
        folder = self._checkpoints.save(self._stepper, progress)
        if progress.best_checkpoint in ("", folder.name):  # without validation the newest is best
            publish(folder, self._task.adapters)
        self._write_state(progress, "training")
        self._metrics.write(self._task.output)
        self._saved_step, self._saved_at = progress.step, time.monotonic()
        size = sum(file.stat().st_size for file in folder.iterdir())
        place = (progress.step, progress.epoch, progress.step_in_epoch)
        seconds = time.perf_counter() - start
        self._link.emit(CheckpointSaved(*place, path=str(folder), bytes=size, seconds=seconds))
        self._link.sync()

    def conclude(self, progress: Progress, outcome: Outcome) -> Outcome:
        """Writes the tables, the state and the summary; returns `outcome`. Raises OSError."""
        if outcome.outcome == "succeeded" and progress.step < self._total_steps:
            self._link.notice("train.early_stop", count=progress.stale)
        self._metrics.write(self._task.output)
        self._write_state(progress, outcome.outcome)
        durable.write_json(self._task.output / SUMMARY, self._summary(progress, outcome))
        return outcome

    def _summary(self, progress: Progress, outcome: Outcome) -> dict[str, Any]:
        return {
            "version": 1,
            "job": self._task.job,
            "outcome": outcome.outcome,
            "cause": to_dict(outcome.cause),
            "steps": progress.step,
            "total_steps": self._total_steps,
            "epochs": progress.epoch + (progress.step > 0),
            "seconds": progress.seconds,
            "tokens": progress.tokens,
            "tokens_per_second": progress.tokens / max(progress.seconds, 1e-9),
            "samples": len(self._samples),
            "samples_seen": progress.samples,
            "samples_cut": self._samples.cut,
            "samples_left_out": self._samples.left_out,
            "first_loss": _finite(progress.first_loss),
            "last_loss": _finite(progress.last_loss),
            "best": _best(progress),
            "adapters": str(self._task.adapters),
            "peak_memory": memory.peak(),
            "model": self._task.plan.model_path,
            "settings": to_dict(self._task.plan.settings),
            "seed": self._task.seed,
        }

    def _write_state(self, progress: Progress, state: str) -> None:
        training_state.write(
            self._task.output,
            TrainingState(
                job=self._task.job,
                state=state,
                fingerprint=self._task.fingerprint,
                home=str(self._task.run.root.parent.parent),
                spec=self._task.frozen_spec,
                plan=to_dict(self._task.plan),
                checkpoints=tuple(self._checkpoints.names()),
                best=_best(progress),
                step=progress.step,
                epoch=progress.epoch,
                step_in_epoch=progress.step_in_epoch,
                total_steps=self._total_steps,
            ),
        )

    def _republish(self, progress: Progress) -> None:
        """`adapters/` again, in case the last attempt ended between checkpoint and copy."""
        best = self._task.output / progress.best_checkpoint
        if progress.best_checkpoint and best.is_dir():
            publish(best, self._task.adapters)


def _best(progress: Progress) -> dict[str, Any]:
    if not progress.best_step:
        return {}
    return {
        "checkpoint": progress.best_checkpoint,
        "step": progress.best_step,
        "loss": progress.best_loss,
    }


def _finite(value: float) -> float | None:
    return value if value == value else None

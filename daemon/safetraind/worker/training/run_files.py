"""The files of a run: events, checkpoints, the best adapter, tables, state and summary."""

from __future__ import annotations

import time
from pathlib import Path

from safetrain_shared.errors import InvalidInput
from safetrain_shared.events import (
    KIND_OF,
    CheckpointSaved,
    Evaluated,
    Event,
    Notice,
    Outcome,
    StepDone,
)
from safetrain_shared.findings import Finding, Status
from safetrain_shared.history import history
from safetrain_shared.learning_curve import trouble
from safetrain_shared.paths import SUMMARY, checkpoint_name
from safetraind.storage import durable, event_file, training_state
from safetraind.storage.manifest import sha256
from safetraind.storage.promotion import publish
from safetraind.storage.training_state import TrainingState
from safetraind.worker.training import adapters, memory_limits, nonfinite
from safetraind.worker.training.checkpoint import Checkpoints
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.early_stop import early_stop
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.metrics_table import write_tables
from safetraind.worker.training.position import RunPosition
from safetraind.worker.training.published import is_published, loads, unpublish
from safetraind.worker.training.step import Stepped, Stepper
from safetraind.worker.training.summary import best_of, summary
from safetraind.worker.training.task import Task
from safetraind.worker.training.throughput import Throughput

SAVE_SECONDS = 600.0


class Records:
    """Writes the records of one run, and restores its position from them."""

    def __init__(self, task: Task, sink: EventSink, stepper: Stepper) -> None:
        self._task, self._sink, self._stepper = task, sink, stepper
        self._total_steps = 0
        self._checkpoints = Checkpoints(task)
        self._history = history(read.event for read in event_file.read(task.run.events))
        self._notified_codes = {notice.finding.code for notice in self._history.notices}
        self._saved_step = 0
        self._saved_at = time.monotonic()

    def resume(self) -> RunPosition:
        """Return the position of the newest whole checkpoint, restored; a new one where there is
        none.

        A damaged checkpoint is skipped with a notice.
        """
        settings, passed_over = self._task.plan.settings, False
        for folder, damaged in self._checkpoints.newest_first():
            if damaged != []:
                passed_over = True
                self._say_damaged(folder.name, damaged)
                continue
            progress = self._checkpoints.load(folder, self._stepper)
            progress.begin(settings)
            self._saved_step = progress.step
            self._republish(progress, folder)
            self._sink.notice("train.resumed", checkpoint=folder.name, step=progress.step)
            return progress
        if passed_over:
            self._sink.notice("train.from_the_beginning")
        self._start_from_adapter()
        progress = RunPosition()
        progress.begin(settings)
        return progress

    def _start_from_adapter(self) -> None:
        """Load the adapter that the job starts from, if it names one.

        Raises NotFound or InvalidInput where the file is gone, changed or another adapter's.
        """
        path = self._task.spec.start_adapter
        if not path:
            return
        if Path(path).is_file() and sha256(Path(path)) != self._task.hashes["start_adapter"]:
            raise InvalidInput("job.data_changed", path=path)
        adapters.start_from(self._stepper.model, Path(path))
        self._sink.emit(Notice(Finding("train.started_from", Status.INFO, args={"path": path})))

    def begin(
        self, progress: RunPosition, samples: Samples, validation: Samples, total_steps: int
    ) -> None:
        """Write that the run is under way, and note once what is left out of the data.

        `total_steps`: optimizer steps of the whole run.
        """
        self._samples, self._validation = samples, validation
        self._total_steps = total_steps
        length = self._task.plan.settings.max_seq_length
        if not progress.step or length < progress.first_length:
            self._say_left_out(length)
        self._task.output.mkdir(parents=True, exist_ok=True)
        self._write_state(progress, "training")

    def save_is_due(self) -> bool:
        """Return whether ten minutes have passed since the last checkpoint."""
        return time.monotonic() - self._saved_at >= SAVE_SECONDS

    def log(
        self, progress: RunPosition, done: Stepped, learning_rate: float, throughput: Throughput
    ) -> None:
        """Log the last step, if anything was learned since the last one logged."""
        if not progress.learned:
            return
        body = StepDone(
            step=progress.step,
            epoch=progress.epoch,
            step_in_epoch=progress.step_in_epoch,
            total_steps=self._total_steps,
            loss=progress.take_loss(),
            learning_rate=learning_rate,
            grad_norm=done.grad_norm,
            tokens=progress.tokens,
            tokens_per_second=throughput.take_tokens_per_second(),
            peak_memory=memory_limits.peak(),
            footprint=memory_limits.own_footprint(),
            eta_seconds=throughput.eta(self._total_steps - progress.step),
        )
        self._emit(body)

    def evaluated_base(self, progress: RunPosition, loss: float, samples: int) -> None:
        """Log the evaluation before the first step. It is never the best: no adapter has it."""
        progress.base_loss = loss
        self._emit(Evaluated(0, 0, 0, loss=loss, samples=samples, best=False))

    def evaluated(
        self, progress: RunPosition, loss: float, samples: int, answered: int = 0
    ) -> bool:
        """Log an evaluation. Return whether it is the best so far, which must then be saved.

        `answered`: see `RunPosition`.
        """
        name = checkpoint_name(progress.epoch, progress.step_in_epoch)
        best = progress.judge(loss, name, answered)
        place = (progress.step, progress.epoch, progress.step_in_epoch)
        body = Evaluated(*place, loss=loss, samples=samples, best=best)
        self._emit(body)
        self._say_trouble(ended=False)
        return best

    def save(self, progress: RunPosition) -> None:
        """Save a checkpoint and the run's records, unless this step is saved already.

        Raises OSError, e.g. on a full disk.
        """
        if progress.step == self._saved_step:
            return
        self._sink.phase("saving")
        start = time.perf_counter()
        folder = self._checkpoints.save(self._stepper, progress)
        if progress.best_checkpoint in ("", folder.name):  # without evaluation the newest is best
            self._publish(folder, progress)
        self._write_state(progress, "training")
        write_tables(self._history, self._task.output)
        self._saved_step, self._saved_at = progress.step, time.monotonic()
        size = sum(file.stat().st_size for file in folder.iterdir())
        place = (progress.step, progress.epoch, progress.step_in_epoch)
        seconds = time.perf_counter() - start
        self._sink.emit(CheckpointSaved(*place, path=str(folder), bytes=size, seconds=seconds))
        self._sink.sync()

    def fail(self, progress: RunPosition, cause: Finding) -> Outcome:
        """End a run that failed, at its last good checkpoint: one whose weights are not finite is
        withdrawn. Raises OSError.
        """
        saved = 0 < progress.step == self._saved_step
        if saved and cause.code == nonfinite.NON_FINITE_WEIGHTS:
            progress = self._withdraw(progress)
        return self.conclude(progress, Outcome("failed", cause))

    def conclude(self, progress: RunPosition, outcome: Outcome) -> Outcome:
        """Write the tables, the state and the summary. Return the outcome. Raises OSError.

        A run that succeeded then has its adapter in `adapters/`; else its outcome becomes failed.
        """
        if outcome.outcome == "succeeded" and not self._proved(progress):
            args = {"path": str(self._task.adapters)}
            outcome = Outcome("failed", Finding("train.adapter_gone", Status.FAILED, True, args))
        if outcome.outcome == "succeeded":
            why = early_stop(self._task.plan.settings, progress)
            if why and progress.step < self._total_steps:
                self._sink.emit(Notice(why))
            self._say_trouble(ended=True)
        write_tables(self._history, self._task.output)
        self._write_state(progress, outcome.outcome)
        text = summary(
            self._task, progress, outcome, self._total_steps, self._samples, self._validation
        )
        durable.write_json(self._task.output / SUMMARY, text)
        return outcome

    def _emit(self, body: StepDone | Evaluated) -> None:
        self._history.take(Event(0, 0, time.time(), KIND_OF[type(body)], body))
        self._sink.emit(body)

    def _write_state(self, progress: RunPosition, state: str) -> None:
        training_state.write(
            self._task.output,
            TrainingState(
                job=self._task.job,
                state=state,
                fingerprint=self._task.fingerprint,
                home=str(self._task.run.root.parent.parent),
                spec=self._task.spec,
                plan=self._task.plan,
                checkpoints=tuple(self._checkpoints.names()),
                best=best_of(progress),
                step=progress.step,
                epoch=progress.epoch,
                step_in_epoch=progress.step_in_epoch,
                total_steps=self._total_steps,
            ),
        )

    def _proved(self, progress: RunPosition) -> bool:
        """Return whether `adapters/` holds the best adapter. It is copied there again where it does
        not.

        Where the best checkpoint is gone too, the published copy stays; else the weights of the
        last step take its place, with a notice.
        """
        folder, output = self._task.adapters, self._task.output
        best = progress.best_checkpoint or checkpoint_name(progress.epoch, progress.step_in_epoch)
        if self._checkpoints.is_whole(best):
            if not is_published(output / best, folder):
                self._publish(output / best, progress)
                self._sink.notice("train.adapter_repaired", checkpoint=best)
            return is_published(output / best, folder)
        if loads(folder) and sha256(folder / adapters.WEIGHTS) == progress.published:
            return True
        self._saved_step = -1  # what was saved is gone
        self.save(progress)
        newest = checkpoint_name(progress.epoch, progress.step_in_epoch)
        self._publish(output / newest, progress)
        self._sink.notice("train.best_gone", checkpoint=best, newest=newest)
        return is_published(output / newest, folder)

    def _publish(self, checkpoint: Path, progress: RunPosition) -> None:
        publish(checkpoint, self._task.adapters)
        progress.published = sha256(self._task.adapters / adapters.WEIGHTS)

    def _withdraw(self, progress: RunPosition) -> RunPosition:
        """Withdraw the checkpoint of this step, because its weights are not finite.

        The best adapter before it is published again, if there was one. Return the position of the
        last good checkpoint.
        """
        name = checkpoint_name(progress.epoch, progress.step_in_epoch)
        self._checkpoints.drop(name)
        self._sink.notice("train.checkpoint_withdrawn", checkpoint=name)
        left = (folder for folder, damaged in self._checkpoints.newest_first() if damaged == [])
        newest = next(left, None)
        if newest is None:
            unpublish(self._task.adapters)
            return RunPosition()
        good = self._checkpoints.progress(newest)
        best = good.best_checkpoint
        whole = bool(best) and self._checkpoints.is_whole(best)
        publish(self._task.output / best if whole else newest, self._task.adapters)
        return good

    def _say_damaged(self, name: str, damaged: list[str] | None) -> None:
        if damaged is None:
            self._sink.notice("train.checkpoint_unfinished", checkpoint=name)
        else:
            reason = ", ".join(damaged)
            self._sink.notice("train.checkpoint_damaged", checkpoint=name, reason=reason)

    def _republish(self, progress: RunPosition, folder: Path) -> None:
        """Publish the adapter again, in case the last attempt ended between checkpoint and copy.

        `folder`: the newest checkpoint, which is the best where there is no evaluation.
        """
        best = progress.best_checkpoint or folder.name
        if self._checkpoints.is_whole(best):
            self._publish(self._task.output / best, progress)
        else:
            self._sink.notice("train.best_damaged", checkpoint=best)

    def _say_trouble(self, *, ended: bool) -> None:
        """Emit the curve's troubles while the run can still be stopped, each once in a run."""
        known = self._history
        if not known.steps:
            return
        settings = self._task.plan.settings
        found = trouble(known.evaluations, known.steps[-1].loss, settings, ended=ended)
        if found and found.code not in self._notified_codes:
            self._notified_codes.add(found.code)
            self._sink.emit(Notice(found))

    def _say_left_out(self, length: int) -> None:
        """Emit which data is not used at `length` tokens, or is rendered otherwise than it
        stands.
        """
        files = (self._task.spec.train, self._samples), (self._task.spec.valid, self._validation)
        for path, part in files:
            for code, found in part.problems.items():
                where = {"path": path, "count": found["count"], "line": found["line"]}
                self._sink.notice("train.rendered_otherwise", cause=code, **found["args"], **where)
        if count := self._samples.left_out:
            self._sink.notice("train.left_out", count=count, length=length)
        if self._task.spec.valid and not self._validation.usable.any():
            path = self._task.spec.valid
            self._sink.notice("train.no_evaluation", path=path, length=length)
        elif count := self._validation.left_out:
            self._sink.notice("train.left_out_of_validation", count=count, length=length)

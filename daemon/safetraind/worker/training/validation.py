"""The validation set of a run: evaluated before the first step, and when the loop asks for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import takewhile

from safetrain_shared.findings import Finding
from safetraind.worker.training import nonfinite
from safetraind.worker.training.batches import evaluation_batches
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.early_stop import worth_asking
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.position import RunPosition
from safetraind.worker.training.run_files import Records
from safetraind.worker.training.step import Stepper
from safetraind.worker.training.stopping_questions import StoppingQuestions
from safetraind.worker.training.task import Task


class Validation:
    """Evaluates the model of one run, and has each evaluation recorded."""

    def __init__(
        self,
        job: Task,
        sink: EventSink,
        stepper: Stepper,
        records: Records,
        samples: Samples,
        stopping: StoppingQuestions,
    ) -> None:
        self._job, self._sink, self._stepper = job, sink, stepper
        self._records, self._samples, self._stopping = records, samples, stopping
        self.usable = bool(samples.usable.any())

    def evaluate_base(self, progress: RunPosition) -> Finding | None:
        """Evaluate before the first step of a run, so that its curve begins with the untrained
        model.

        A run that continues has done so before. One that is to leave does so when it comes back.
        Return the finding where the loss is not finite, else None.
        """
        if not self.usable or progress.step:
            return None
        loss, samples = self._loss(lambda: not self._sink.intent())
        if self._sink.intent():
            return None
        if not math.isfinite(loss):
            return self._cause(progress, 0.0)
        self._records.evaluated_base(progress, loss, samples)
        return None

    def evaluate(self, progress: RunPosition, rate: float, *, epoch_end: bool) -> bool | Finding:
        """Return whether this is the best evaluation so far, or the finding where the loss is not
        finite.

        `rate`: the learning rate of the last step. `epoch_end`: of one that is not the
        last, so that questions may end the run.
        """
        loss, samples = self._loss()
        if not math.isfinite(loss):
            return self._cause(progress, rate)
        ask = epoch_end and worth_asking(progress, loss)
        answered = self._stopping.all_right() if ask else 0
        return self._records.evaluated(progress, loss, samples, answered)

    def _loss(self, go_on: Callable[[], bool] = lambda: True) -> tuple[float, int]:
        self._sink.phase("evaluating")
        settings, bucket = self._job.plan.settings, self._job.plan.length_bucket
        batches = evaluation_batches(self._samples, settings, bucket, self._job.seed)
        return self._stepper.evaluate(takewhile(lambda _: go_on(), batches))

    def _cause(self, progress: RunPosition, rate: float) -> Finding:
        settings, bucket = self._job.plan.settings, self._job.plan.length_bucket
        return nonfinite.diagnose_evaluation(
            self._stepper,
            evaluation_batches(self._samples, settings, bucket, self._job.seed),
            self._samples,
            self._job.spec.valid,
            progress.step,
            rate,
        )

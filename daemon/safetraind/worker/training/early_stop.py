"""Whether a training ends before its last step, by what its evaluations showed; pure."""

from __future__ import annotations

from safetrain_shared.findings import Finding, Status
from safetrain_shared.learning_curve import NOTHING_LEFT
from safetrain_shared.settings import TrainingSettings
from safetraind.worker.training.position import RunPosition


def early_stop(settings: TrainingSettings, progress: RunPosition) -> Finding | None:
    """Return why to stop early, or None: nothing is left to learn, evaluations brought no lower
    loss, or the last epoch hardly a lower one.
    """
    if settings.early_stopping and progress.best_loss < NOTHING_LEFT:
        return Finding("train.nothing_left", Status.WARNING, args={"loss": progress.best_loss})
    if 0 < settings.early_stopping <= progress.stale:
        return Finding("train.early_stop", Status.WARNING, args={"count": progress.stale})
    if progress.last_gain < settings.early_stopping_gain:
        return Finding("train.flat", Status.WARNING, args={"share": progress.last_gain})
    return None

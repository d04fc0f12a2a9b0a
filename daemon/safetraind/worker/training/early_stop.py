"""Whether a training ends before its last step, by what its evaluations showed; pure."""

from __future__ import annotations

from safetrain_shared.findings import Finding
from safetrain_shared.learning_curve import NOTHING_LEFT
from safetrain_shared.settings import TrainingSettings
from safetraind.worker.training.position import RunPosition


def early_stop(settings: TrainingSettings, progress: RunPosition) -> Finding | None:
    """Return why to stop early, or None: nothing is left to learn, or as many evaluations brought
    no lower loss, or as many epochs hardly a lower one, as `early_stopping` says.
    """
    if not settings.early_stopping:
        return None
    if progress.best_loss < NOTHING_LEFT:
        return Finding("train.nothing_left", args={"loss": progress.best_loss})
    if progress.stale >= settings.early_stopping:
        return Finding("train.early_stop", args={"count": progress.stale})
    if progress.flat >= settings.early_stopping:
        return Finding("train.flat", args={"count": progress.flat})
    return None

"""Whether a training ends before its last step, by what its evaluations showed; pure."""

from __future__ import annotations

from safetrain_shared.findings import Finding, Status
from safetrain_shared.learning_curve import NOTHING_LEFT
from safetrain_shared.settings import TrainingSettings
from safetraind.worker.training.position import RunPosition

_FLAT = 0.05  # an epoch that brought less of the whole gain


def worth_asking(progress: RunPosition, loss: float) -> bool:
    """Count an epoch that ended with a validation `loss`, not judged yet, and return whether
    questions can now tell more: the curve is flat, as it is at its end and on a plateau alike.

    They cost as much as some steps, so they are asked after the first flat epoch, the second, the
    fourth, and so on.
    """
    gained = progress.base_loss - min(loss, progress.best_loss)
    if loss < NOTHING_LEFT or not progress.best_loss - loss <= _FLAT * gained:
        return False
    progress.flat += 1
    return progress.flat.bit_count() == 1


def early_stop(settings: TrainingSettings, progress: RunPosition) -> Finding | None:
    """Return why to stop early, or None: nothing is left to learn, by the loss or by questions, or
    evaluations brought no lower loss.
    """
    if not settings.early_stopping:
        return None
    if progress.answered:
        return Finding("train.all_answered", Status.WARNING, args={"count": progress.answered})
    if progress.best_loss < NOTHING_LEFT:
        return Finding("train.nothing_left", Status.WARNING, args={"loss": progress.best_loss})
    if settings.early_stopping <= progress.stale:
        return Finding("train.early_stop", Status.WARNING, args={"count": progress.stale})
    return None

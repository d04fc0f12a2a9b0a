"""What a validation curve says of a training: too hot, overfitted or too short; pure."""

from __future__ import annotations

from collections.abc import Sequence

from safetrain_shared.errors import ArgValue
from safetrain_shared.events import Evaluated
from safetrain_shared.findings import Finding, Status
from safetrain_shared.settings import TrainingSettings

_ABOVE = 1.02
"""Above what it was before training: evaluations are of the same samples, so little is noise."""

_RISEN, _FAR = 1.03, 1.1
"""Risen: this many times the lowest, at two evaluations after it, or far above it at one."""

NOTHING_LEFT = 0.01
"""A validation loss below it leaves nothing to learn: each right token has 99 %, exp(-0.01)."""

_STILL_FALLING = 0.1
"""Too short: the last interval brought more than this share of all that was gained."""


def lower_rate(rate: float) -> float:
    """Return the learning rate to try next where `rate` was too high."""
    return rate / 4


def trouble(
    evaluations: Sequence[Evaluated],
    train_loss: float,
    settings: TrainingSettings,
    *,
    ended: bool,
) -> Finding | None:
    """Return what goes wrong with the setting to change, or None.

    `evaluations`: in order, from step 0 where the base was evaluated. `train_loss`: the newest.
    `ended`: no more steps come, so that a run may have been too short.
    """
    base = next((e for e in evaluations[:1] if not e.step), None)
    found = [e for e in evaluations if e.step]
    if not found:
        return None
    last, lowest = found[-1], min(evaluations, key=lambda e: e.loss)
    if base and last.loss > _ABOVE * base.loss:
        code = "train.too_hot" if train_loss > base.loss else "train.overfits_base"
        return _warning(
            code,
            last=last.loss,
            base=base.loss,
            step=last.step,
            train=train_loss,
            rate=settings.learning_rate,
            lower=lower_rate(settings.learning_rate),
        )
    if last.loss < NOTHING_LEFT or (last.best and last is not lowest):  # chosen by questions
        return None
    if _has_risen(found, lowest):
        return _warning(
            "train.overfits",
            best=lowest.loss,
            step=lowest.step,
            last=last.loss,
            train=train_loss,
            epochs=lowest.epoch + 1,
        )
    if ended and base and last is lowest and _still_falls(base, found):
        epochs = settings.num_epochs
        args = {"before": found[-2].loss, "last": last.loss, "epochs": epochs, "more": 2 * epochs}
        return _warning("train.too_short", **args)
    return None


def _has_risen(found: Sequence[Evaluated], lowest: Evaluated) -> bool:
    later = [e.loss / max(lowest.loss, NOTHING_LEFT) for e in found if e.step > lowest.step]
    return bool(later) and (later[-1] > _FAR or (len(later) > 1 and min(later[-2:]) > _RISEN))


def _still_falls(base: Evaluated, found: Sequence[Evaluated]) -> bool:
    """Whether the interval before the last evaluation brought a large share of the gain."""
    if len(found) < 2:
        return False
    return found[-2].loss - found[-1].loss > _STILL_FALLING * (base.loss - found[-1].loss)


def _warning(code: str, **args: int | float) -> Finding:
    """The finding; losses are rounded for people, other numbers of three digits stay the same."""
    rounded: dict[str, ArgValue] = {name: float(f"{value:.3g}") for name, value in args.items()}
    whole = {name: value for name, value in args.items() if isinstance(value, int)}
    return Finding(code, Status.WARNING, args=rounded | whole)

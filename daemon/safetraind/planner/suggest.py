"""The models of the table that fit a machine and data, each planned from its shape. Nothing is run.

Time is scaled from one training whose speed is known: a token costs a pass forward through all
weights, and one backward through the trained layers, which gradient checkpointing computes again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from safetrain_shared.errors import ArgValue
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import Plan
from safetrain_shared.settings import TrainingSettings
from safetraind.models.model_config import ModelShape
from safetraind.models.suggested import SUGGESTED, Suggested
from safetraind.planner import choose_plan
from safetraind.planner.batch_shapes import padded_tokens
from safetraind.planner.memory_estimate import trained_layers
from safetraind.planner.option import Question

# A size class holds models with less than so many bytes of weights.
_CLASSES = ((1 << 30, "tiny"), (3 << 30, "small"), (7 << 30, "medium"))
_LARGEST_CLASS = "large"


@dataclass(frozen=True, slots=True)
class Speed:
    """A training whose speed is known: tokens a second, padding included, of the model `name`."""

    name: str
    shape: ModelShape
    settings: TrainingSettings
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A model of the table, planned.

    `peak`: that of the plan in bytes, or the least possible one where nothing `fits`. `seconds`:
    the whole training, 0 where unknown.
    """

    model: Suggested
    size_class: str
    fits: bool
    peak: int
    seconds: float = 0.0


def suggest(
    question: Question, speed: Speed | None = None, models: Sequence[Suggested] = SUGGESTED
) -> list[Suggestion]:
    """Return all `models` judged, from the smallest class up.

    In a class those that know Portuguese come first, then the smaller ones. `question` may be of
    any model, because its own is replaced.
    """
    found = [_judged(question, model, speed) for model in models]
    order = [name for _, name in _CLASSES] + [_LARGEST_CLASS]
    return sorted(
        found,
        key=lambda s: (order.index(s.size_class), not s.model.portuguese, s.model.billions),
    )


def largest_fitting(question: Question, models: Sequence[Suggested] = SUGGESTED) -> Suggestion:
    """Return the largest model that fits, one that knows Portuguese where there is one.

    Raises LookupError where none fits.
    """
    smaller = [m for m in models if m.shape.weight_bytes < question.shape.weight_bytes]
    fitting = [s for s in suggest(question, models=smaller) if s.fits]
    if not fitting:
        raise LookupError
    return max(fitting, key=lambda s: (bool(s.model.portuguese), s.model.billions))


def smaller_model(refusal: Finding, question: Question) -> list[Finding]:
    """Return advice to use a smaller model of the table, where one fits; empty where none does, or
    where more memory would not help.
    """
    if "budget" not in refusal.args:
        return []
    try:
        fitting = largest_fitting(question)
    except LookupError:
        return []
    args: dict[str, ArgValue] = {"model": fitting.model.repository, "peak": fitting.peak}
    return [Finding("plan.smaller_model", args=args, section="recommendation")]


def _judged(question: Question, model: Suggested, speed: Speed | None) -> Suggestion:
    asked = dataclasses.replace(
        question,
        shape=model.shape,
        quantized=bool(model.bits),
        model_path=model.repository,
        splits_head=True,
    )
    answer, size_class = choose_plan.plan(asked), _size_class(model.shape)
    if not isinstance(answer, Plan):
        return Suggestion(model, size_class, fits=False, peak=choose_plan.smallest(asked).peak)
    seconds = _seconds(asked, answer, speed) if speed else 0.0
    return Suggestion(model, size_class, fits=True, peak=answer.predicted_peak, seconds=seconds)


def _seconds(question: Question, plan: Plan, speed: Speed) -> float:
    """Return the seconds of all epochs, scaled from the known training by the work of a token."""
    tokens, _ = padded_tokens(question.lengths, plan.settings, plan.length_bucket)
    tokens = round(tokens * question.lengths.scale * plan.settings.num_epochs)
    more = _work(question.shape, plan.settings) / _work(speed.shape, speed.settings)
    return tokens / speed.tokens_per_second * more


def _work(shape: ModelShape, settings: TrainingSettings) -> float:
    """Return the work of one token, in passes through one weight."""
    trained = trained_layers(shape, settings) / shape.layers
    passes = 1 + trained * (1 + settings.gradient_checkpointing)
    return passes * shape.float32_bytes / 4


def _size_class(shape: ModelShape) -> str:
    return next((name for most, name in _CLASSES if shape.weight_bytes < most), _LARGEST_CLASS)

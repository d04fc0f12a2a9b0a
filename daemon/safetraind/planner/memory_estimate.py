"""Predicts MLX's peak memory of a training step from the model's shape, without running anything.

The parts, as they were found by measuring steps of eight architectures on the CPU:
weights and three times the trainable parameters (gradient, Adam's two moments), logits in several
copies, attention scores where attention is not fused, and the activations of the layers that are
trained. What is measured on this machine corrects it afterwards.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from safetrain_shared.settings import TrainingSettings
from safetraind.models.model_config import ModelShape

_ADAM_COPIES = 3
_LOGIT_COPIES = 4
_EVALUATED_LOGIT_COPIES = 2
_SURELY_LESS = 0.7


@dataclass(frozen=True, slots=True)
class Step:
    """The largest micro-batch of a run: rows × width tokens, of which `learned` go through the
    head. `fused`: attention keeps no scores for the way back. `valid_width`, `valid_learned`: the
    same of the widest batch of an evaluation, 0 where that is no wider.
    """

    rows: int
    width: int
    learned: int
    fused: bool = False
    valid_width: int = 0
    valid_learned: int = 0


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes at the peak, by what they are for."""

    weights: int
    adapter: int
    logits: int
    scores: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.adapter + self.logits + self.scores + self.activations

    def off_by(self, seen: int) -> float:
        """By what factor it differs from what was `seen`. The weights are known exactly."""
        return (seen - self.weights) / max(1, self.total - self.weights)

    def corrected(self, factor: float) -> int:
        """All of it, if it is off by `factor`."""
        return self.weights + round(factor * (self.total - self.weights))


def predict(shape: ModelShape, settings: TrainingSettings, step: Step) -> Peak:
    """The peak of a step, the second and later ones, or of an evaluation where that takes more."""
    peaks = [_trained(shape, settings, step)]
    if step.valid_width:
        peaks.append(_evaluated(shape, settings, step))
    return max(peaks, key=lambda peak: peak.total)


def heaviest_part(shape: ModelShape, settings: TrainingSettings, step: Step) -> Step:
    """The step without its evaluation, where that surely takes less than the training."""
    trained, evaluated = _trained(shape, settings, step), _evaluated(shape, settings, step)
    if step.valid_width and evaluated.total < _SURELY_LESS * trained.total:
        return dataclasses.replace(step, valid_width=0, valid_learned=0)
    return step


def largest_array(shape: ModelShape, settings: TrainingSettings, step: Step) -> int:
    """Bytes of the largest array that depends on how it is trained: logits, scores, activations."""
    item = item_bytes(shape, settings)
    width = max(step.width, step.valid_width)
    scores = 0 if step.fused else shape.heads * width**2
    logits = max(_through_head(settings, n) for n in (step.learned, step.valid_learned))
    activations = width * max(shape.intermediate, shape.hidden)
    return item * max(step.rows * max(scores, activations), logits * shape.vocabulary)


def item_bytes(shape: ModelShape, settings: TrainingSettings) -> int:
    """Bytes of a number that the model computes with."""
    return 4 if settings.dequantize else shape.item_bytes


def _trained(shape: ModelShape, settings: TrainingSettings, step: Step) -> Peak:
    item, layers = item_bytes(shape, settings), _trained_layers(shape, settings)
    copies = _ADAM_COPIES + 1 + (settings.gradient_accumulation > 1)
    held = 2 if settings.gradient_checkpointing else layers + 1
    return Peak(
        weights=_weights(shape, settings),
        adapter=4 * copies * _parameters(shape, settings),
        logits=_LOGIT_COPIES * item * _through_head(settings, step.learned) * shape.vocabulary,
        scores=0 if step.fused else held * _scores(shape, item, step.rows, step.width),
        activations=_activations(shape, settings, step.rows * step.width, layers, item),
    )


def _evaluated(shape: ModelShape, settings: TrainingSettings, step: Step) -> Peak:
    """Without a way back: one layer at a time, and no gradients."""
    item = item_bytes(shape, settings)
    predictions = _through_head(settings, step.valid_learned)
    return Peak(
        weights=_weights(shape, settings),
        adapter=4 * _ADAM_COPIES * _parameters(shape, settings),
        logits=_EVALUATED_LOGIT_COPIES * item * predictions * shape.vocabulary,
        scores=0 if step.fused else 2 * _scores(shape, item, step.rows, step.valid_width),
        activations=_layer(shape, step.rows * step.valid_width, item),
    )


def _weights(shape: ModelShape, settings: TrainingSettings) -> int:
    return shape.float32_bytes if settings.dequantize else shape.weight_bytes


def _parameters(shape: ModelShape, settings: TrainingSettings) -> int:
    rank, layers, targets = settings.lora_rank, settings.lora_layers, settings.lora_targets
    return shape.adapter_parameters(rank, layers, targets)


def _trained_layers(shape: ModelShape, settings: TrainingSettings) -> int:
    return min(settings.lora_layers or shape.layers, shape.layers)


def _through_head(settings: TrainingSettings, learned: int) -> int:
    """Predictions whose logits exist at once."""
    return min(settings.loss_chunk or learned, learned)


def _scores(shape: ModelShape, item: int, rows: int, width: int) -> int:
    """The attention scores of one layer."""
    return item * shape.heads * rows * width**2


def _activations(
    shape: ModelShape, settings: TrainingSettings, tokens: int, layers: int, item: int
) -> int:
    layer = _layer(shape, tokens, item)
    if not settings.gradient_checkpointing:
        return layers * layer
    return 2 * layer + layers * item * tokens * shape.hidden


def _layer(shape: ModelShape, tokens: int, item: int) -> int:
    """A layer keeps, a token: 5 times the MLP's width, 6 the hidden size, 4 the heads' width."""
    heads = shape.head_dim * (shape.heads + 2 * shape.kv_heads)
    return item * tokens * (4 * shape.intermediate + 6 * shape.hidden + 2 * heads)

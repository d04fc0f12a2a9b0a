"""Predicts MLX's peak memory of a training step from the model's shape, without running anything.

The parts, as they were found by measuring steps of eight architectures on the CPU:
weights and three times the trainable parameters (gradient, Adam's two moments), logits in several
copies, attention scores where attention is not fused, and the activations of the layers that are
trained. What is measured on this machine corrects it afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.settings import TrainingSettings
from safetraind.preflight.model_folder import ModelShape

_ADAM_COPIES = 3
_LOGIT_COPIES = 4


@dataclass(frozen=True, slots=True)
class Step:
    """The largest micro-batch of a run: rows × width tokens, of which `learned` go through the
    head. `fused`: attention keeps no scores for the way back.
    """

    rows: int
    width: int
    learned: int
    fused: bool = False


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


def predict(shape: ModelShape, settings: TrainingSettings, step: Step) -> Peak:
    """The peak of a step, the second and later ones."""
    item = 4 if settings.dequantize else shape.item_bytes
    tokens, layers = step.rows * step.width, _trained_layers(shape, settings)
    parameters = shape.adapter_parameters(
        settings.lora_rank, settings.lora_layers, settings.lora_targets
    )
    copies = _ADAM_COPIES + 1 + (settings.gradient_accumulation > 1)
    return Peak(
        weights=shape.float32_bytes if settings.dequantize else shape.weight_bytes,
        adapter=4 * copies * parameters,
        logits=_logits(shape, settings, step, item),
        scores=_scores(shape, settings, step, layers, item),
        activations=_activations(shape, settings, tokens, layers, item),
    )


def _trained_layers(shape: ModelShape, settings: TrainingSettings) -> int:
    return min(settings.lora_layers or shape.layers, shape.layers)


def _logits(shape: ModelShape, settings: TrainingSettings, step: Step, item: int) -> int:
    rows = min(settings.loss_chunk or step.learned, step.learned)
    return _LOGIT_COPIES * item * rows * shape.vocabulary


def _scores(
    shape: ModelShape, settings: TrainingSettings, step: Step, layers: int, item: int
) -> int:
    if step.fused:
        return 0
    held = 2 if settings.gradient_checkpointing else layers + 1
    return item * shape.heads * held * step.rows * step.width**2


def _activations(
    shape: ModelShape, settings: TrainingSettings, tokens: int, layers: int, item: int
) -> int:
    """A layer keeps, a token: 5 times the MLP's width, 6 the hidden size, 4 the heads' width."""
    heads = shape.head_dim * (shape.heads + 2 * shape.kv_heads)
    layer = item * tokens * (4 * shape.intermediate + 6 * shape.hidden + 2 * heads)
    if not settings.gradient_checkpointing:
        return layers * layer
    return 2 * layer + layers * item * tokens * shape.hidden

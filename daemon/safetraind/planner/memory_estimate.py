"""Estimates MLX's peak memory of a training step from the model's shape, without running anything.

The parts: weights; the trainable parameters with their gradients and Adam's two moments; the logits
in several copies; attention scores where they are kept; what the trained layers keep for the
backward pass. `make bench-published` compares the sum with peaks that people measured on Macs.
Preflight uses it where nothing can be run, and to order the ways of computing that it probes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from safetrain_shared.attention import BLOCK
from safetrain_shared.settings import TrainingSettings
from safetraind.models.model_config import ModelShape
from safetraind.planner.layer_attention import WHOLE, Attention, attention
from safetraind.worker_messages.probe_messages import Step

_ADAM_COPIES = 3
# Logits, their exponentials and the gradient, in numbers of the model's type: on the CPU as
# measured there, on a GPU from published peaks of large vocabularies (`make bench-published`).
_LOGIT_COPIES = 4
_LOGIT_COPIES_GPU = 5
_EVALUATED_LOGIT_COPIES = 2
# With memory to spare a CPU's evaluator runs some hundred operations ahead, so that the logits of
# several chunks of the loss exist at once: measured on llama and qwen3_moe, 160 to 640 predictions
# in chunks of 128, within 10 %.
_COPIES_AHEAD, _CHUNKS_AHEAD = 6, 3
# In a layer's backward pass: scores, their gradient, and what the softmax makes of them.
_SCORES_IN_FLIGHT = 4
_SURELY_LESS = 0.7
# Matrices that share their input.
_INPUT_OF = dict.fromkeys(("q_proj", "k_proj", "v_proj"), "attention")
_INPUT_OF |= dict.fromkeys(("gate_proj", "up_proj"), "mlp")


@dataclass(frozen=True, slots=True)
class Runtime:
    """The model, the device (cpu, metal or cuda), and whether the model's head can be split off.

    Without that the loss is never computed in chunks. The other fields describe other trainers, for
    the comparison with peaks measured of them: they keep the adapters' inputs as float32, make
    float32 logits, and keep scores where this trainer does not.
    """

    shape: ModelShape
    device: str = "cpu"
    splits_head: bool = True
    float32_inputs: bool = False
    float32_logits: bool = False
    unfused: bool = False


@dataclass(frozen=True, slots=True)
class Peak:
    """The bytes at the peak, by their use."""

    weights: int
    adapter: int
    logits: int
    scores: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of all parts, in bytes."""
        return self.weights + self.adapter + self.logits + self.scores + self.activations

    def off_by(self, seen: int) -> float:
        """Return the factor by which it differs from the peak that was `seen`. The weights are
        known exactly.
        """
        return (seen - self.weights) / max(1, self.total - self.weights)

    def corrected(self, factor: float) -> int:
        """Return the peak corrected by `factor`, which does not apply to the weights."""
        return self.weights + round(factor * (self.total - self.weights))


def predict(runtime: Runtime, settings: TrainingSettings, step: Step) -> Peak:
    """Return the peak of a step, the second and later ones, or of an evaluation where it takes
    more.
    """
    peaks = [_trained(runtime, settings, step)]
    if step.valid_width:
        peaks.append(evaluated(runtime, settings, step))
    return max(peaks, key=lambda peak: peak.total)


def expected(runtime: Runtime, settings: TrainingSettings, step: Step, limit: int) -> Peak:
    """Return the peak that is measured where MLX's memory limit is `limit` bytes.

    It is the step's need and the memory that MLX fills by running ahead, which it does only below
    the limit. 0: the limit is unknown.
    """
    need = predict(runtime, settings, step)
    chunk = _chunk(runtime, settings)
    if runtime.device != "cpu" or not 0 < chunk < step.learned:
        return need
    logits = _logits_of(runtime, settings, min(_CHUNKS_AHEAD * chunk, step.learned))
    more = _COPIES_AHEAD * logits - _LOGIT_COPIES * _logits(runtime, settings, step.learned)
    ahead = min(need.total + max(0, more), max(need.total, limit)) - need.total
    return dataclasses.replace(need, logits=need.logits + ahead)


def heaviest_part(runtime: Runtime, settings: TrainingSettings, step: Step) -> Step:
    """Return the step without its evaluation, where the evaluation surely takes less than the
    training.
    """
    if not step.valid_width:
        return step
    trained = _trained(runtime, settings, step)
    if evaluated(runtime, settings, step).total < _SURELY_LESS * trained.total:
        return dataclasses.replace(step, valid_width=0, valid_learned=0)
    return step


def largest_array(runtime: Runtime, settings: TrainingSettings, step: Step) -> int:
    """Return the bytes of the largest array that depends on how it is trained: logits, scores,
    activations.
    """
    shape, width = runtime.shape, max(step.width, step.valid_width)
    attends = _attention(runtime, settings, width)
    queries = width if attends.kept else min(BLOCK, width) if attends.in_blocks else 0
    scores = shape.heads * queries * width
    logits = max(_logits(runtime, settings, n) for n in (step.learned, step.valid_learned))
    widest = max(shape.intermediate, shape.hidden, shape.routed * shape.expert_width)
    activations = width * widest
    rows = item_bytes(shape, settings) * step.rows * max(scores, activations)
    return max(rows, logits)


def item_bytes(shape: ModelShape, settings: TrainingSettings) -> int:
    """Return the bytes of a number in the model's computations."""
    return 4 if settings.dequantize else shape.item_bytes


def gradient_bytes(shape: ModelShape, settings: TrainingSettings) -> int:
    """Return the bytes of the adapter's float32 gradients. Accumulation keeps them once more."""
    return 4 * _parameters(shape, settings)


def most_per_square(runtime: Runtime, settings: TrainingSettings, width: int) -> float:
    """Return the bytes per B·T² that attention scores take at most, for rows of `width` tokens.
    Those of a block grow with B·T.
    """
    kept = _attention(runtime, settings, width).kept
    if not kept:
        return 0.0
    if settings.gradient_checkpointing:
        kept = 0.0
    held = kept * trained_layers(runtime.shape, settings) + _SCORES_IN_FLIGHT
    return held * item_bytes(runtime.shape, settings) * runtime.shape.heads


def attends_alike(runtime: Runtime, settings: TrainingSettings, one: int, other: int) -> bool:
    """Return whether rows of `one` and of `other` tokens compute attention in the same way."""
    return _attention(runtime, settings, one) == _attention(runtime, settings, other)


def computes_loss_alike(runtime: Runtime, settings: TrainingSettings, one: int, other: int) -> bool:
    """Return whether the loss of `one` and of `other` predictions is computed in the same way: of
    all at once, or in chunks.
    """
    chunk = _chunk(runtime, settings)
    return not chunk or (one > chunk) == (other > chunk)


def holds_loss_alike(runtime: Runtime, settings: TrainingSettings, one: int, other: int) -> bool:
    """Return whether the losses of `one` and of `other` predictions hold logits in the same way: of
    all predictions, or of as many chunks as exist at once.

    A second chunk that is full takes as much as two and a part: of qwen3 (50k words) 240
    predictions took 555 MB, 256 took 626, and so did 288.
    """
    chunk = _chunk(runtime, settings)
    if not chunk or runtime.device != "cpu":
        return computes_loss_alike(runtime, settings, one, other)
    return _chunks_held(chunk, one) == _chunks_held(chunk, other)


def _chunks_held(chunk: int, learned: int) -> int:
    return sum((learned > chunk, learned >= 2 * chunk, learned > _CHUNKS_AHEAD * chunk))


def _trained(runtime: Runtime, settings: TrainingSettings, step: Step) -> Peak:
    """Return the larger of two moments: the loss with all its logits, and the backward pass of a
    layer.
    """
    shape, tokens = runtime.shape, step.tokens
    item, layers = item_bytes(shape, settings), trained_layers(shape, settings)
    copies = _ADAM_COPIES + 1 + (settings.gradient_accumulation > 1)
    layer, scores = _layer(runtime, settings, tokens), _scores(shape, item, step.rows, step.width)
    attends = _attention(runtime, settings, step.width)
    recomputes = settings.gradient_checkpointing
    kept = layers * (item * tokens * shape.hidden if recomputes else layer)
    scores_kept = 0.0 if recomputes else layers * attends.kept * scores
    logits = _logit_copies(runtime) * _logits(runtime, settings, step.learned)
    working = (1 + recomputes + (runtime.device == "cpu")) * layer
    in_flight = _SCORES_IN_FLIGHT * _at_once(attends, shape, scores, step.rows, step.width)
    in_layer = working + in_flight > logits
    return Peak(
        weights=_weights(shape, settings),
        adapter=copies * gradient_bytes(shape, settings),
        logits=0 if in_layer else logits,
        scores=round(scores_kept + in_layer * in_flight),
        activations=kept + in_layer * working,
    )


def evaluated(runtime: Runtime, settings: TrainingSettings, step: Step) -> Peak:
    """Return the peak of an evaluation: one layer at a time, and no gradients."""
    shape, width = runtime.shape, step.valid_width
    item = item_bytes(shape, settings)
    scores = _scores(shape, item, step.rows, width)
    attends = _attention(runtime, settings, width)
    return Peak(
        weights=_weights(shape, settings),
        adapter=_ADAM_COPIES * gradient_bytes(shape, settings),
        logits=_EVALUATED_LOGIT_COPIES * _logits(runtime, settings, step.valid_learned),
        scores=2 * _at_once(attends, shape, scores, step.rows, width),
        activations=_layer(runtime, settings, step.rows * width),
    )


def trained_layers(shape: ModelShape, settings: TrainingSettings) -> int:
    """Return the layers that carry an adapter."""
    return min(settings.lora_layers or shape.layers, shape.layers)


def _weights(shape: ModelShape, settings: TrainingSettings) -> int:
    return shape.float32_bytes if settings.dequantize else shape.weight_bytes


def _parameters(shape: ModelShape, settings: TrainingSettings) -> int:
    rank, layers, targets = settings.lora_rank, settings.lora_layers, settings.lora_targets
    return shape.adapter_parameters(rank, layers, targets)


def _chunk(runtime: Runtime, settings: TrainingSettings) -> int:
    """Return the predictions of a chunk of the loss, 0 where it is computed whole."""
    return settings.loss_chunk if runtime.splits_head else 0


def _logits(runtime: Runtime, settings: TrainingSettings, learned: int) -> int:
    """Return the bytes of the logits that exist at once."""
    chunk = _chunk(runtime, settings)
    return _logits_of(runtime, settings, min(chunk or learned, learned))


def _logits_of(runtime: Runtime, settings: TrainingSettings, predictions: int) -> int:
    item = 4 if runtime.float32_logits else item_bytes(runtime.shape, settings)
    return item * predictions * runtime.shape.vocabulary


def _logit_copies(runtime: Runtime) -> int:
    return _LOGIT_COPIES if runtime.device == "cpu" else _LOGIT_COPIES_GPU


def _attention(runtime: Runtime, settings: TrainingSettings, width: int) -> Attention:
    if runtime.unfused:
        return WHOLE
    return attention(runtime.shape, runtime.device, width, packed=settings.packing)


def _at_once(attends: Attention, shape: ModelShape, scores: int, rows: int, width: int) -> int:
    """Return the bytes of the scores of a layer that exist at once: all, those of a block in
    float32, none.
    """
    if attends.kept:
        return scores
    return 4 * shape.heads * rows * min(BLOCK, width) * width if attends.in_blocks else 0


def _scores(shape: ModelShape, item: int, rows: int, width: int) -> int:
    """Return the number of attention scores of one layer."""
    return item * shape.heads * rows * width**2


def _layer(runtime: Runtime, settings: TrainingSettings, tokens: int) -> int:
    """Return the numbers that a layer keeps per token: 4 times the MLP's width, 6 times the hidden
    size, twice the heads' width.
    """
    shape, item = runtime.shape, item_bytes(runtime.shape, settings)
    heads = shape.head_dim * (shape.heads + 2 * shape.kv_heads)
    kept = item * (_mlp(shape) + 6 * shape.hidden + 2 * heads)
    if runtime.float32_inputs:
        kept += (4 - item) * _adapted_inputs(shape, settings)
    return tokens * kept


def _mlp(shape: ModelShape) -> int:
    """Return the numbers that the MLP keeps per token: 4 times its width.

    Each expert that a token passes through also keeps its own input and output (measured on
    mlx-lm's qwen3_moe, within 6 %).
    """
    if not shape.routed:
        return 4 * shape.intermediate
    return shape.routed * (4 * shape.expert_width + 2 * shape.hidden)


def _adapted_inputs(shape: ModelShape, settings: TrainingSettings) -> int:
    """Return the numbers per token in the distinct inputs of a layer's adapted matrices."""
    targets = settings.lora_targets
    chosen = [m for m in shape.linears if not targets or m.name.endswith(targets)]
    groups = {_INPUT_OF.get(m.name.rpartition(".")[2], m.name): m.inputs for m in chosen}
    return sum(groups.values())

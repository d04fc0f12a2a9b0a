"""The ways to train that the planner judges: the user's choices, the tier, and the settings that
are searched.

The user's choices stand. Where the user chose nothing, the tier of the table is the beginning: its
effective batch and its learning rate are kept, and what decides memory and speed is searched:
micro-batch and accumulation, sequence length, gradient checkpointing, loss in chunks, and on a CPU
whether a quantized base is computed as float32.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

from safetrain_shared.settings import LENGTH_BUCKET, LOSS_CHUNK, TrainingSettings
from safetraind.planner.batch_shapes import compiled_shapes, counted_rows, heaviest_step
from safetraind.planner.epochs import EARLY_STOPPING, kind_of, recommended_epochs
from safetraind.planner.option import Question
from safetraind.planner.pilot import recommended_rate
from safetraind.planner.tiers import tier_for

# A run of few steps learns little: tiny data keeps a smaller effective batch than the tier's.
_LEAST_STEPS_AN_EPOCH = 50
_LEAST_EFFECTIVE_BATCH = 4
# From here on the logits of a micro-batch, as float32, go through the head in chunks: that takes no
# longer where they are large, and gains nothing where they are small.
LARGE_LOGITS = 32 << 20
_SHORTER = (4096, 2048, 1024, 512, 256, 128)
# Metal counts buffers, not bytes, and every compiled shape keeps some of them (mlx #4464): runs of
# others died at 500 to 1,500 a shape, in models of 16 to 40 layers.
_BUFFERS_A_LAYER = 50
_RESOURCES_SHARE = 0.5
_COARSEST_BUCKET = 1024


def starting_settings(question: Question) -> TrainingSettings:
    """Return the tier's settings, replaced by the pilot's rate and the user's choices.

    The effective batch is then fixed: the tier's, or the nearest to it that a chosen micro-batch or
    accumulation allows.
    """
    return _with_epochs(question, _with_pilot(question, _by_tier(question)))


def _by_tier(question: Question) -> TrainingSettings:
    tier, chosen = tier_for(question.available), dict(question.spec.settings)
    settings = dataclasses.replace(
        question.spec.complete_settings,
        batch_size=tier.batch_size,
        gradient_accumulation=tier.gradient_accumulation,
        max_seq_length=tier.max_seq_length,
        learning_rate=tier.learning_rate,
    )
    effective = question.effective_batch or settings.effective_batch
    settings = settings.with_overrides(chosen)
    settings = settings.with_overrides(dict.fromkeys(question.unsupported, False))
    if question.text_only and "mask_prompt" not in chosen:
        settings = dataclasses.replace(settings, mask_prompt=False)
    match "batch_size" in chosen, "gradient_accumulation" in chosen:
        case True, False:
            accumulation = max(1, effective // settings.batch_size)
            return dataclasses.replace(settings, gradient_accumulation=accumulation)
        case False, True:
            rows = max(1, effective // settings.gradient_accumulation)
            return dataclasses.replace(settings, batch_size=rows)
        case False, False if question.effective_batch:
            return dataclasses.replace(settings, batch_size=1, gradient_accumulation=effective)
        case False, False:
            return _for_tiny_data(question, settings, keep_rate="learning_rate" in chosen)
    return settings


def _with_epochs(question: Question, settings: TrainingSettings) -> TrainingSettings:
    """Return the settings with more epochs for few samples, and with early stopping.

    A training that continues keeps its own, and so does one whose length the user chose.
    """
    chosen = question.spec.settings
    if question.effective_batch or settings.max_steps or "num_epochs" in chosen:
        return settings
    steps = math.ceil(question.samples / settings.effective_batch)  # packed rows teach more each
    epochs = recommended_epochs(kind_of(question.lengths), steps, settings.num_epochs)
    if epochs == settings.num_epochs:
        return settings
    settings = dataclasses.replace(settings, num_epochs=epochs)
    if question.valid is None or "early_stopping" in chosen:
        return settings
    return dataclasses.replace(settings, early_stopping=EARLY_STOPPING)


def _with_pilot(question: Question, settings: TrainingSettings) -> TrainingSettings:
    """Return the rate that a pilot found, unless the user chose one."""
    rate = recommended_rate(question.pilot) if question.pilot else 0.0
    if not rate or "learning_rate" in question.spec.settings:
        return settings
    return dataclasses.replace(settings, learning_rate=rate)


def _for_tiny_data(
    question: Question, settings: TrainingSettings, *, keep_rate: bool
) -> TrainingSettings:
    """Halve the effective batch while an epoch has too few steps, and the rate with it.

    (The linear rule of Goyal et al. 2017: the rate belongs to the batch.)
    """
    batch, rate = settings.effective_batch, settings.learning_rate
    longest = dataclasses.replace(settings, max_seq_length=lengths(question, settings)[0])
    rows = rows_an_epoch(question, longest)
    while batch > _LEAST_EFFECTIVE_BATCH and rows / batch < _LEAST_STEPS_AN_EPOCH:
        batch, rate = batch // 2, rate if keep_rate else rate / 2
    micro = min(settings.batch_size, batch)
    return dataclasses.replace(
        settings, batch_size=micro, gradient_accumulation=batch // micro, learning_rate=rate
    )


def rows_an_epoch(
    question: Question, settings: TrainingSettings, bucket: int = LENGTH_BUCKET
) -> int:
    """Return the rows that an epoch trains on: the samples, or with packing as many rows as they
    fill.
    """
    samples = question.samples - question.lengths.left_out(settings.max_seq_length)
    if not settings.packing:
        return samples
    share = counted_rows(question.lengths, settings, bucket) / max(1, question.lengths.counted)
    return math.ceil(share * samples)


def lengths(question: Question, settings: TrainingSettings) -> list[int]:
    """Return the sequence lengths to try, the best first: all of the data, then shorter ones.

    Below the tier's own length only where the user allowed it: it may cut away what is to be
    learned, and a refusal that names the length lets the user decide.
    """
    if "max_seq_length" in question.spec.settings:
        return [settings.max_seq_length]
    whole = LENGTH_BUCKET * math.ceil(max(8, question.lengths.longest) / LENGTH_BUCKET)
    least = 1 if question.spec.allow_shorter else settings.max_seq_length
    return [whole, *(n for n in _SHORTER if least <= n < whole)]


def candidates(
    question: Question, settings: TrainingSettings, length: int, bucket: int
) -> Iterator[TrainingSettings]:
    """Yield the settings that train with sequences of `length` tokens, in no order."""
    chosen = question.spec.settings
    dequantized = (True, False) if question.device == "cpu" and question.quantized else (False,)
    if {"gradient_checkpointing"} & (chosen.keys() | question.unsupported):
        recomputed: Sequence[bool] = (settings.gradient_checkpointing,)
    else:
        recomputed = (False, True)
    if "dequantize" in chosen:
        dequantized = (settings.dequantize,)
    for rows, recompute, dequantize in itertools.product(
        _rows(question, settings), recomputed, dequantized
    ):
        accumulation = settings.gradient_accumulation
        if "gradient_accumulation" not in chosen:
            accumulation = max(1, settings.effective_batch // rows)
        candidate = dataclasses.replace(
            settings,
            batch_size=rows,
            gradient_accumulation=accumulation,
            max_seq_length=length,
            gradient_checkpointing=recompute,
            dequantize=dequantize,
        )
        for chunk in _chunks(question, candidate, bucket):
            yield dataclasses.replace(candidate, loss_chunk=chunk)


def _rows(question: Question, settings: TrainingSettings) -> list[int]:
    """Return the sizes of a micro-batch to try. With a chosen accumulation the smaller ones, which
    come last, reduce the effective batch.
    """
    if "batch_size" in question.spec.settings:
        return [settings.batch_size]
    if "gradient_accumulation" in question.spec.settings:
        return _divisors(settings.batch_size)
    return _divisors(settings.effective_batch)


def _chunks(question: Question, settings: TrainingSettings, bucket: int) -> tuple[int, ...]:
    """Return the values of `loss_chunk` to try: whole, in chunks, or both, by the size of the
    logits.
    """
    if "loss_chunk" in question.spec.settings:
        return (settings.loss_chunk,)
    step = heaviest_step(question.lengths, settings, bucket=bucket)
    if step.learned <= LOSS_CHUNK or not question.splits_head:
        return (0,)
    if 4 * step.learned * question.shape.vocabulary > LARGE_LOGITS:
        return (LOSS_CHUNK,)
    return (0, LOSS_CHUNK)


def length_bucket(question: Question, settings: TrainingSettings, length: int) -> int:
    """Return the bucket of padded lengths, in tokens: as small as the device's buffers allow."""
    bucket = LENGTH_BUCKET
    settings = dataclasses.replace(settings, max_seq_length=length)
    while question.resources and bucket < _COARSEST_BUCKET:
        shapes = compiled_shapes(question.lengths, settings, bucket, question.valid)
        buffers = shapes * _BUFFERS_A_LAYER * question.shape.layers
        if buffers <= _RESOURCES_SHARE * question.resources:
            break
        bucket *= 2
    return bucket


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]

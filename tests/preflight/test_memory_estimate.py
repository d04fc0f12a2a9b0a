"""The estimate from shape: against published peaks, and what it must tell apart."""

from __future__ import annotations

import dataclasses
import statistics

import pytest

from benchmarks.bench_published import counted, left_out, rows
from benchmarks.published.shapes import model_shape
from safetrain_shared.settings import TrainingSettings
from safetraind.planner.memory_estimate import (
    Runtime,
    expected,
    holds_loss_alike,
    most_per_square,
    predict,
)
from safetraind.worker_messages.probe_messages import Step

MISTRAL = Runtime(model_shape("mistral-7b-v0.3", 4), "metal")
STEP = Step(4, 2048, 4 * 2048)


def test_published_peaks_are_estimated_within_the_goals() -> None:
    errors = [row.error for row in counted()]
    assert len(errors) >= 10
    assert statistics.median(map(abs, errors)) <= 0.10
    assert min(errors) >= -0.08


def test_every_row_has_a_source_and_what_is_left_out_a_rule() -> None:
    assert all(row["source"] for row in rows())
    assert {left_out(row)[:1] for row in rows()} == {"", "1", "2", "3", "4"}


def test_packed_rows_keep_scores_only_up_to_the_width_of_the_blocks() -> None:
    plain, packed = TrainingSettings(gradient_checkpointing=False), TrainingSettings(packing=True)
    short, long = Step(4, 512, 256), Step(4, 2048, 1024)
    assert predict(MISTRAL, plain, long).scores == 0
    assert predict(MISTRAL, packed, long).scores < predict(MISTRAL, packed, short).scores


def test_a_window_shorter_than_the_sequence_has_the_scores_of_a_block_at_once() -> None:
    gemma = Runtime(model_shape("gemma-3-4b", 4), "metal")
    short, long = (predict(gemma, TrainingSettings(), Step(1, w, 64)) for w in (1024, 2048))
    heads = gemma.shape.heads
    assert (short.scores, long.scores) == (0, 4 * 4 * heads * 256 * 2048)


def test_blocks_make_the_peak_on_a_cpu_grow_with_the_width_and_not_its_square() -> None:
    cpu = dataclasses.replace(MISTRAL, device="cpu")
    settings = TrainingSettings(loss_chunk=128)
    peaks = [predict(cpu, settings, Step(1, w, w)).total for w in (1024, 2048, 3072)]
    assert peaks[2] - peaks[1] == pytest.approx(peaks[1] - peaks[0], rel=0.01)
    assert most_per_square(cpu, settings, 1024) == 0 < most_per_square(cpu, settings, 512)
    whole = dataclasses.replace(cpu, unfused=True)
    assert predict(whole, settings, Step(1, 2048, 2048)).total > 1.4 * peaks[1]


def test_float32_copies_of_the_adapters_inputs_cost_what_ours_save() -> None:
    copied = dataclasses.replace(MISTRAL, float32_inputs=True)
    settings = TrainingSettings(gradient_checkpointing=False)
    ours, theirs = (predict(r, settings, STEP).total for r in (MISTRAL, copied))
    assert 0.07 < 1 - ours / theirs < 0.25


def test_running_ahead_fills_memory_up_to_the_limit_and_no_further() -> None:
    """On a CPU the logits of several chunks exist at once, where there is memory for them."""
    cpu = dataclasses.replace(MISTRAL, device="cpu")
    chunked, step = TrainingSettings(loss_chunk=128), Step(4, 512, 2048)
    need = predict(cpu, chunked, step).total
    free = expected(cpu, chunked, step, 1 << 62).total
    one_chunk = 128 * cpu.shape.vocabulary * 2  # bytes of 16-bit logits
    assert free - need == (6 * 3 - 4) * one_chunk
    assert expected(cpu, chunked, step, need + one_chunk).total == need + one_chunk
    assert expected(cpu, chunked, step, need // 2).total == need
    for runtime, settings in ((MISTRAL, chunked), (cpu, TrainingSettings(loss_chunk=0))):
        assert expected(runtime, settings, step, 1 << 62) == predict(runtime, settings, step)


def test_a_head_that_cannot_be_split_off_makes_all_logits_at_once() -> None:
    chunked = TrainingSettings(loss_chunk=128, gradient_checkpointing=True)
    splits = Runtime(model_shape("qwen3-4b", 4), "metal")
    whole = dataclasses.replace(splits, splits_head=False)
    assert predict(whole, chunked, STEP).total > predict(splits, chunked, STEP).total


def test_losses_are_alike_where_as_many_chunks_exist_at_once() -> None:
    """On a CPU up to three do. Measured on gemma2 with 64k words: from 192 predictions to 288 the
    peak grows by 216 MB, from 288 to 384 by 68. From 240 to 256, where the second is full, it grows
    by 94 MB, and from there to 288 by none.
    """
    cpu, chunked = dataclasses.replace(MISTRAL, device="cpu"), TrainingSettings(loss_chunk=128)
    for runtime, one, other, alike in (
        (cpu, 96, 128, True),
        (cpu, 128, 192, False),
        (cpu, 192, 240, True),
        (cpu, 240, 256, False),
        (cpu, 256, 288, True),
        (cpu, 192, 288, False),
        (cpu, 288, 384, True),
        (cpu, 384, 640, False),
        (cpu, 480, 640, True),
        (MISTRAL, 192, 640, True),
        (MISTRAL, 128, 192, False),
    ):
        assert holds_loss_alike(runtime, chunked, one, other) == alike
    assert holds_loss_alike(cpu, TrainingSettings(loss_chunk=0), 96, 640)

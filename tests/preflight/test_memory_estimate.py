"""The estimate from shape: against published peaks, and what it must tell apart."""

from __future__ import annotations

import dataclasses
import statistics

from benchmarks.bench_published import counted, left_out, rows
from benchmarks.published.shapes import model_shape
from safetrain_shared.settings import TrainingSettings
from safetraind.planner.memory_estimate import Runtime, predict
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


def test_packed_rows_keep_scores_on_metal_and_plain_ones_do_not() -> None:
    plain = predict(MISTRAL, TrainingSettings(), STEP)
    packed = predict(MISTRAL, TrainingSettings(packing=True), STEP)
    assert plain.scores == 0 < 15 * 10**9 < packed.scores


def test_a_window_shorter_than_the_sequence_keeps_scores_on_its_layers() -> None:
    gemma = Runtime(model_shape("gemma-3-4b", 4), "metal")
    short, long = (predict(gemma, TrainingSettings(), Step(1, w, w)) for w in (512, 2048))
    assert short.scores == 0 < long.scores


def test_float32_copies_of_the_adapters_inputs_cost_what_ours_save() -> None:
    copied = dataclasses.replace(MISTRAL, float32_inputs=True)
    settings = TrainingSettings(gradient_checkpointing=False)
    ours, theirs = (predict(r, settings, STEP).total for r in (MISTRAL, copied))
    assert 0.07 < 1 - ours / theirs < 0.25


def test_a_head_that_cannot_be_split_off_makes_all_logits_at_once() -> None:
    chunked = TrainingSettings(loss_chunk=128, gradient_checkpointing=True)
    splits = Runtime(model_shape("qwen3-4b", 4), "metal")
    whole = dataclasses.replace(splits, splits_head=False)
    assert predict(whole, chunked, STEP).total > predict(splits, chunked, STEP).total

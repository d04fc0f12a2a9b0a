"""Shapes counted from lengths alone are those of the batches that are trained on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from safetrain_shared.settings import LENGTH_BUCKET, TrainingSettings
from safetraind.planner.batch_shapes import (
    compiled_shapes,
    counted_rows,
    heaviest_step,
    mean_step,
    micro_batches,
    narrower_steps,
    padded_tokens,
    sample_of,
)
from safetraind.worker.data.encode_chat import Encoded
from safetraind.worker.training.batches import Batch, Batches, evaluation_batches
from safetraind.worker.training.dataset import Samples, write
from safetraind.worker_messages.inspect_messages import Lengths
from tests.preflight.facts import lengths


def settings(**values: object) -> TrainingSettings:
    return TrainingSettings(**{"batch_size": 4, "max_seq_length": 512, **values})  # type: ignore[arg-type]


def written(folder: Path, draw: np.random.Generator, count: int) -> tuple[Samples, Lengths]:
    """Samples of log-normal lengths, of each of which some last part is learned, and the counts."""
    sizes = np.clip(draw.lognormal(np.log(90), 0.8, count), 4, 700).astype(int)
    learned = [int(draw.integers(1, size)) for size in sizes]
    made = [
        Encoded(line, [7] * int(size), [i >= size - part for i in range(int(size))])
        for line, (size, part) in enumerate(zip(sizes, learned, strict=True), 1)
    ]
    counts = {int(n): int((sizes == n).sum()) for n in sizes}
    tops = sorted(zip(sizes.tolist(), learned, strict=True), reverse=True)[:128]
    firsts = Counter(int(size) - part for size, part in zip(sizes, learned, strict=True))
    answers = tuple(sorted(firsts.items()))
    counted = Lengths(tuple(sorted(counts.items())), answers, int(sizes.max()), tuple(tops))
    return write(folder, made, 512, {}), counted


def trained(samples: Samples, chosen: TrainingSettings, epochs: int = 3) -> list[Batch]:
    made = Batches(samples, chosen, LENGTH_BUCKET, seed=1)
    places = [(epoch, place) for epoch in range(epochs) for place in range(made.steps_per_epoch)]
    return [batch for epoch, place in places for batch in made.window(epoch, place)]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("rows", [1, 4])
def test_no_batch_has_a_shape_that_was_not_foreseen(
    tmp_path: Path, rows: int, packing: bool
) -> None:
    draw = np.random.default_rng(rows)
    chosen = settings(batch_size=rows, gradient_accumulation=2, packing=packing)
    samples, counted = written(tmp_path / "train", draw, 203)
    valid, valid_counted = written(tmp_path / "valid", draw, 31)
    seen = trained(samples, chosen)
    evaluated = list(evaluation_batches(valid, chosen, LENGTH_BUCKET, seed=1))
    shapes = {(batch.inputs.shape, batch.places.shape) for batch in [*seen, *evaluated]}
    assert len(shapes) <= compiled_shapes(counted, chosen, valid=valid_counted)
    heaviest = heaviest_step(counted, chosen, valid=valid_counted)
    widest = max(seen, key=lambda batch: batch.inputs.size)
    assert (heaviest.rows, heaviest.width) == widest.inputs.shape
    assert heaviest.learned >= max(
        len(b.places) for b in seen if b.inputs.size == widest.inputs.size
    )


@pytest.mark.parametrize("packing", [False, True])
def test_tokens_and_rows_are_those_of_an_epoch(tmp_path: Path, packing: bool) -> None:
    chosen = settings(packing=packing)
    samples, counted = written(tmp_path / "train", np.random.default_rng(5), 200)
    seen = trained(samples, chosen, epochs=1)
    assert counted_rows(counted, chosen) == sum(len(batch.inputs) for batch in seen)
    tokens, number = padded_tokens(counted, chosen)
    assert number == len(seen)
    assert tokens == pytest.approx(sum(batch.inputs.size for batch in seen), rel=0.01)
    learned = sum(count * step.learned for step, count in micro_batches(counted, chosen))
    # What counts in a packed row is known on average only, and is rounded up to a quarter of it.
    near = 0.25 if packing else 0.1
    assert learned == pytest.approx(sum(batch.places.size for batch in seen), rel=near)


def test_tokens_with_padding_are_counted_as_batches_make_them() -> None:
    # Widths 96 (3 samples) and 32 (5): with 2 rows 96|96, 96|32, 32|32, 32|32.
    counted = lengths((20, 5), (90, 3))
    assert padded_tokens(counted, settings(batch_size=2)) == (2 * (96 + 96 + 32 + 32), 4)
    assert padded_tokens(counted, settings(batch_size=1)) == (3 * 96 + 5 * 32, 8)


def test_the_heaviest_step_is_the_widest_with_the_most_to_learn() -> None:
    long = lengths((20, 50), (200, 3))
    step = heaviest_step(long, settings(batch_size=2))
    assert (step.rows, step.width) == (2, 208)
    assert step.learned == 208  # 2 × 100 answers, rounded up to quarters of 416
    cut = heaviest_step(long, settings(batch_size=2, max_seq_length=64))
    assert cut.width == 64


def test_narrower_steps_are_a_few_that_the_samples_make_with_as_large_a_share_to_learn() -> None:
    chosen = settings(batch_size=2)
    data = lengths(*((width, 8) for width in range(17, 402, 16)))
    heaviest = heaviest_step(data, chosen)
    assert (heaviest.width, heaviest.learned) == (416, 416)
    others = narrower_steps(data, chosen, heaviest)
    assert [step.width for step in others] == [384, 320, 256]
    assert all(step.rows == 2 and step.learned == step.width for step in others)
    few = narrower_steps(lengths((401, 8), (350, 8), (100, 8)), chosen, heaviest)
    assert [step.width for step in few] == [352]
    assert not narrower_steps(lengths((401, 8)), chosen, heaviest)


def test_a_sample_is_spread_over_the_shapes_of_an_epoch() -> None:
    chosen = settings(batch_size=2)
    data = lengths(*((width, 8) for width in range(17, 402, 16)))
    shapes = {step for step, _ in micro_batches(data, chosen)}
    assert set(sample_of(data, chosen, LENGTH_BUCKET, 100)) == shapes
    few = sample_of(data, chosen, LENGTH_BUCKET, 5)
    assert [step.width for step in few] == [352, 240, 176, 112, 48] and shapes.issuperset(few)


def test_the_mean_step_is_as_wide_as_the_rows_are_on_average() -> None:
    chosen = settings(batch_size=2)
    data = lengths((20, 5), (90, 3))
    heaviest = heaviest_step(data, chosen)
    mean = mean_step(heaviest, *padded_tokens(data, chosen))
    assert (mean.rows, mean.width) == (2, 64)  # widths 96, 96, 32, 32
    assert mean.learned * heaviest.width == heaviest.learned * mean.width
    alike = lengths((90, 8))
    assert mean_step(heaviest, *padded_tokens(alike, chosen)) == heaviest


def test_an_evaluation_counts_where_it_is_wider() -> None:
    short, long = lengths((40, 50)), lengths((20, 5), (200, 3))
    step = heaviest_step(short, settings(), valid=long)
    assert (step.width, step.valid_width) == (48, 208)
    assert step.valid_learned == 416
    assert heaviest_step(long, settings(), valid=short).valid_width == 0


def test_compiled_shapes_stay_few_however_long_the_samples_are() -> None:
    spread = lengths(*((n, 1) for n in range(2, 4096)))
    widths = compiled_shapes(spread, settings(max_seq_length=4096, batch_size=1)) / 4
    assert widths == 16 + 8 * 4

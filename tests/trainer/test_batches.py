"""Windows and micro-batches: every sample once, few shapes, little padding."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetrain_shared.settings import TrainingSettings
from safetraind.batching import packed_rows, padded
from safetraind.worker.data.encode_chat import Encoded
from safetraind.worker.training import rng
from safetraind.worker.training.batches import Batches, evaluation_batches
from safetraind.worker.training.dataset import Samples, write


def settings(**values: object) -> TrainingSettings:
    return TrainingSettings(**{"batch_size": 4, "max_seq_length": 512, **values})  # type: ignore[arg-type]


def samples_of(folder: Path, lengths: Sequence[int]) -> Samples:
    made = (
        Encoded(line, [line % 250 + 1] * n, [i >= n // 2 for i in range(n)])
        for line, n in enumerate(lengths, 1)
    )
    return write(folder / "tokens", made, 512, {})


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    draw = np.random.default_rng(1)
    lengths = np.clip(draw.lognormal(np.log(90), 0.8, 203), 4, 500).astype(int)
    return samples_of(tmp_path_factory.mktemp("lognormal"), lengths.tolist())


def seen(batches: Batches, epoch: int) -> list[int]:
    windows = (batches.window(epoch, place) for place in range(batches.steps_per_epoch))
    return sorted(n for window in windows for part in window for n in part.samples)


@pytest.mark.parametrize("packing", [False, True])
def test_an_epoch_sees_every_sample_once(packing: bool, samples: Samples) -> None:
    batches = Batches(samples, settings(packing=packing, gradient_accumulation=3), 32, seed=1)
    assert seen(batches, 0) == seen(batches, 5) == list(range(203))


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_the_ranks_shares_of_a_window_are_the_window(ranks: int, samples: Samples) -> None:
    chosen = settings(batch_size=2, gradient_accumulation=2)
    whole = Batches(samples, chosen, 32, seed=1)
    shares = [Batches(samples, chosen, 32, seed=1, share=(n, ranks)) for n in range(ranks)]
    for place in range(whole.steps_per_epoch):
        numbers = [n for part in whole.window(1, place) for n in part.samples]
        parts = [[n for b in share.window(1, place) for n in b.samples] for share in shares]
        assert sorted(n for part in parts for n in part) == sorted(numbers)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert [b.samples for b in shares[-1].whole_window(1, place)] == [
            b.samples for b in whole.window(1, place)
        ]


def test_the_steps_of_an_epoch_follow_from_the_effective_batch(samples: Samples) -> None:
    assert Batches(samples, settings(), 32, seed=1).steps_per_epoch == 51  # 203 by 4
    accumulating = settings(gradient_accumulation=2)
    assert Batches(samples, accumulating, 32, seed=1).steps_per_epoch == 26


def test_windows_do_not_depend_on_how_they_are_cut(samples: Samples) -> None:
    cuts = [(8, 1), (4, 2), (2, 4), (1, 8)]
    orders = []
    for size, accumulation in cuts:
        chosen = settings(batch_size=size, gradient_accumulation=accumulation)
        batches = Batches(samples, chosen, 32, seed=1)
        orders.append(
            [
                [n for part in batches.window(1, place) for n in part.samples]
                for place in range(batches.steps_per_epoch)
            ]
        )
    assert all(order == orders[0] for order in orders)


def test_windows_hold_samples_of_like_length_and_come_in_another_order_each_epoch(
    samples: Samples,
) -> None:
    batches = Batches(samples, settings(), 16, seed=1)
    real = computed = 0
    lengths = []
    for epoch, place in itertools.product(range(2), range(batches.steps_per_epoch)):
        (part,) = batches.window(epoch, place)
        real, computed = real + part.tokens, computed + part.inputs.size
        lengths.append(part.inputs.shape[1])
    assert real / computed > 0.9
    first, second = lengths[:51], lengths[51:]
    assert sorted(first) == sorted(second)
    assert first != second
    assert first != sorted(first)


def test_the_shapes_are_few(samples: Samples) -> None:
    batches = Batches(samples, settings(), 16, seed=1)
    places = itertools.product(range(3), range(batches.steps_per_epoch))
    parts = [part for place in places for part in batches.window(*place)]
    widths = {part.inputs.shape for part in parts}
    assert len(widths) <= 26  # 8 up to 128, 8 to 256, 8 to 512, and the last, smaller batch
    shapes = {(part.inputs.shape, part.places.shape) for part in parts}
    assert len(shapes) <= 4 * len(widths)


@pytest.mark.parametrize("packing", [False, True])
def test_the_most_predictions_of_a_row_are_known(packing: bool, samples: Samples) -> None:
    batches = Batches(samples, settings(batch_size=1, packing=packing), 16, seed=1)
    windows = (batches.window(0, place) for place in range(batches.steps_per_epoch))
    computed = max(len(part.places) for window in windows for part in window)
    assert computed <= batches.most_predictions <= (512 if packing else computed)


@given(st.integers(1, 100_000), st.sampled_from([8, 16, 32, 64]))
def test_padding_a_length_costs_less_than_a_bucket_or_an_eighth(length: int, bucket: int) -> None:
    width = padded(length, bucket)
    assert width >= length
    assert width - length < max(bucket, length / 8 + 1)
    assert padded(width, bucket) == width


def test_there_are_at_most_eight_lengths_between_powers_of_two() -> None:
    for power in range(8, 14):
        widths = {padded(n, 32) for n in range(2**power + 1, 2 ** (power + 1) + 1)}
        assert len(widths) == 8


@given(st.lists(st.integers(1, 100), min_size=1, max_size=200))
def test_packed_rows_hold_everything_once_within_their_width(lengths: list[int]) -> None:
    rows = list(packed_rows(Counter(lengths), 100))
    assert sorted(length for row in rows for length in row) == sorted(lengths)
    assert all(sum(row) <= 100 for row in rows)


def test_packing_leaves_little_padding_in_rows_as_wide_as_nearly_all_samples(
    samples: Samples,
) -> None:
    batches = Batches(samples, settings(packing=True), 16, seed=1)
    parts = [batches.window(0, place)[0] for place in range(batches.steps_per_epoch)]
    assert sum(part.tokens for part in parts) / sum(part.inputs.size for part in parts) > 0.95
    common = min(part.inputs.shape[1] for part in parts)
    assert np.quantile(samples.lengths, 0.9) < common < samples.lengths.max() / 1.3
    narrow = [part for part in parts if part.inputs.shape[1] == common]
    assert len(narrow) > 0.8 * len(parts)


def test_predictions_that_count_stand_where_the_next_token_is_learned(tmp_path: Path) -> None:
    made = [Encoded(1, [5, 6, 7, 8], [False, False, True, True])]
    batches = Batches(write(tmp_path / "t", made, 16, {}), settings(), 8, seed=0)
    (part,) = batches.window(0, 0)
    assert part.inputs.tolist() == [[5, 6, 7, 0, 0, 0, 0, 0]]
    assert part.places[part.weights == 1].tolist() == [1, 2]
    assert part.targets[part.weights == 1].tolist() == [7, 8]
    assert (part.tokens, part.learned) == (3, 2)


def test_validation_is_whole_and_always_the_same(samples: Samples) -> None:
    whole = list(evaluation_batches(samples, settings(), 32, seed=1))
    assert sorted(n for part in whole for n in part.samples) == list(range(203))
    chosen = [
        sorted(n for part in evaluation_batches(samples, s, 32, seed=1) for n in part.samples)
        for s in (settings(eval_samples=20), settings(eval_samples=20, batch_size=1))
    ]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 20


def test_random_numbers_stay_what_they_are() -> None:
    """A training resumed by a later version must find the same order."""
    assert rng.number(7, 1, 2) == 7375511981258972965
    assert rng.order(8, 7, 0, 3).tolist() == [1, 2, 3, 0, 7, 6, 4, 5]
    many = rng.order(10_000, 1)
    assert sorted(many) == list(range(10_000))
    assert abs(np.corrcoef(many, np.arange(10_000))[0, 1]) < 0.03

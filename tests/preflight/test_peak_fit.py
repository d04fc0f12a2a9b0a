"""The curve through a few small steps, on made-up numbers and on peaks that were measured."""

from __future__ import annotations

import itertools

import pytest

from safetraind.planner.peak_fit import Fit, Sample, fit, probe_shapes

MB = 1_000_000
SMALL = [(1, 64), (1, 128), (1, 192)]


def made_up(rows: int, width: int, base: float, linear: float, square: float) -> Sample:
    tokens = rows * width
    peak = base + linear * tokens + square * tokens * width
    return Sample(rows, width, round(peak))


def curve(samples: list[Sample], most: float) -> Fit:
    found = fit(samples, most)
    assert found is not None
    return found


def test_a_curve_of_its_own_kind_is_found_exactly() -> None:
    found = curve([made_up(*shape, 50 * MB, 2e5, 160.0) for shape in SMALL], 200.0)
    assert found.peak(1, 256) == pytest.approx(50 * MB + 2e5 * 256 + 160 * 256**2, rel=1e-6)


def test_the_quadratic_term_is_bounded_by_what_attention_can_take() -> None:
    noisy = [Sample(1, w, p * MB) for w, p in ((64, 100), (128, 101), (192, 103))]
    free, bounded = curve(noisy, 1e9), curve(noisy, 20.0)
    assert bounded.per_square == 20.0 < free.per_square
    assert bounded.peak(1, 256) < free.peak(1, 256)


def test_two_rows_are_known_by_a_narrower_third() -> None:
    """Two shapes alone leave the quadratic term to the bound, here four times too high."""
    samples = [made_up(*shape, 50 * MB, 2e5, 100.0) for shape in probe_shapes(2, 256, 16)]
    assert len(samples) == 3
    true = made_up(2, 256, 50 * MB, 2e5, 100.0).peak
    assert curve(samples, 400.0).peak(2, 256) == pytest.approx(true, rel=1e-6)


def test_fused_attention_has_no_quadratic_term() -> None:
    noisy = [Sample(1, w, p * MB) for w, p in ((64, 100), (128, 110), (192, 121))]
    assert curve(noisy, 0.0).per_square == 0.0


def test_more_than_attention_is_followed_where_the_samples_show_it() -> None:
    """A layer that loops over the tokens keeps a state for each of them."""
    loop = [made_up(*shape, 50 * MB, 1e5, 5000.0) for shape in SMALL]
    assert curve(loop, 100.0).peak(1, 256) == pytest.approx(50 * MB + 1e5 * 256 + 5e3 * 256**2)


def test_two_samples_leave_the_quadratic_term_to_the_bound() -> None:
    two = [made_up(*shape, 50 * MB, 1e5, 100.0) for shape in SMALL[1:]]
    assert curve(two, 100.0).peak(1, 256) == pytest.approx(50 * MB + 1e5 * 256 + 100 * 256**2)


def test_one_shape_is_no_curve_however_often_it_was_run() -> None:
    assert fit([made_up(1, 64, MB, 1.0, 0.0)] * 3, 1.0) is None


def test_the_curve_passes_through_the_largest_sample_and_reaches_not_far_beyond() -> None:
    samples = [Sample(1, 64, 100 * MB), Sample(2, 64, 140 * MB)]
    samples.append(Sample(3, 64, 200 * MB))
    found = curve(samples, 0.0)
    assert found.peak(3, 64) == 200 * MB
    assert found.reaches(4, 64) and found.reaches(6, 64)
    assert not found.reaches(8, 64) and not found.reaches(1, 128)


# MLX's peaks in MB on the CPU, of models of benchmarks.preflight: rows of 256 tokens, 1 to 4.
MEASURED = {
    "llama of 1k words": (74.0, 123.9, 174.6, 225.9),
    "the same, checkpointed": (44.2, 65.9, 87.8, 109.8),
    "the same, its loss in chunks": (71.3, 118.9, 167.1, 215.2),
    "llama of 16k words": (323.1, 510.1, 692.8, 877.6),
    "the same, checkpointed ": (230.6, 330.0, 426.6, 514.9),
    "the same, its loss in chunks ": (320.5, 463.5, 568.8, 682.4),
}


@pytest.mark.parametrize("peaks", MEASURED.values(), ids=MEASURED)
def test_measured_peaks_are_extrapolated_within_four_percent(peaks: tuple[float, ...]) -> None:
    rows = {number: round(peak * MB) for number, peak in enumerate(peaks, 1)}
    shapes = probe_shapes(4, 256, 16)
    samples = [Sample(n, width, rows[n]) for n, width in shapes]
    assert curve(samples, 0.0).peak(4, 256) == pytest.approx(rows[4], rel=0.04)


@pytest.mark.parametrize(("rows", "width"), [*itertools.product((1, 2, 3, 4, 8), (48, 256, 2048))])
def test_small_shapes_are_lighter_and_their_curve_reaches_the_shape(rows: int, width: int) -> None:
    shapes = probe_shapes(rows, width, 16)
    tokens = [r * w for r, w in shapes]
    assert len(shapes) >= 2 and tokens == sorted(tokens) and tokens[-1] < rows * width
    assert all(w % 16 == 0 and w <= width for _, w in shapes)
    found = curve([made_up(*shape, MB, 1e3, 1.0) for shape in shapes], 1.0)
    assert found.reaches(rows, width)

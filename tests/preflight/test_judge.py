"""What the steps that were run tell of an option: its peak, how surely, its time, and deaths."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest

from safetrain_shared.jobs import Plan
from safetrain_shared.settings import LENGTH_BUCKET, TrainingSettings
from safetraind.planner import choose_plan
from safetraind.planner.batch_shapes import padded_tokens
from safetraind.planner.degree import Degree
from safetraind.planner.judge import memory_limit
from safetraind.planner.option import Option
from safetraind.worker_messages.probe_messages import Measure, Step
from tests.preflight.facts import (
    GB,
    MB,
    budget,
    estimated,
    lengths,
    planned,
    question,
    spec,
)


def test_a_measure_under_another_memory_limit_counts_only_below_both() -> None:
    """MLX fills its memory up to the limit: what took more than there is now may take less."""
    asked = question()
    best = choose_plan.options(asked)[0]
    limit = asked.budget.limit
    under = partial(Measure, best.settings, best.step, tokens_per_second=100.0)
    for peak, then, counts in (
        (limit // 2, 10 * limit, True),
        (2 * limit, 10 * limit, False),
        (2 * limit, limit, True),  # measured within today's limit: it takes that much
        (limit // 2, limit // 4, False),  # held back then, and not now
        (2 * limit, 0, True),  # of an older version
    ):
        known = choose_plan.judge(asked, [under(peak, limit=then)])
        _, degree = known.peak(best.settings, best.step)
        assert (degree is Degree.MEASURED) == counts


def test_what_was_at_its_memory_limit_is_trained_under_the_same_limit() -> None:
    """Measured on qwen2 with 150k words: 796 MB under a limit of 788, and 873 under one of 816."""
    asked = question()
    best, limit = choose_plan.options(asked)[0], asked.budget.limit
    under = partial(Measure, best.settings, best.step, tokens_per_second=100.0)
    for peak, then, trains_under in (
        (limit // 2, 10 * limit, limit),
        (limit, limit - limit // 20, limit - limit // 20),
        (limit + limit // 40, limit + limit // 20, limit + limit // 20),
        (limit, 0, limit),  # of an older version
    ):
        plan = choose_plan.plan(asked, [under(peak, limit=then)])
        assert isinstance(plan, Plan) and plan.memory_limit == trains_under


def test_what_was_run_under_another_limit_tells_its_time_and_not_its_peak() -> None:
    """Else a plan that a larger budget had measured was timed by its cost alone."""
    asked = question()
    best, limit = choose_plan.options(asked)[0], asked.budget.limit
    run = Measure(best.settings, best.step, 2 * limit, 100.0, limit=3 * limit)
    found = choose_plan.judge(asked, [run]).option(best.settings)
    assert found.degree is Degree.ESTIMATED and found.peak == best.peak
    alone = choose_plan.judge(asked, [dataclasses.replace(run, peak=best.peak)])
    assert found.seconds == alone.option(best.settings).seconds > 0


@pytest.mark.parametrize(("accumulation", "taken"), [(1, 3.0), (4, 2.0)])
def test_accumulation_spares_the_time_of_applying_gradients(
    accumulation: int, taken: float
) -> None:
    """A second to compute a micro-batch, two to apply; a step was run of two where they add up.

    A micro-batch takes as long as 24 tokens beside its own.
    """
    asked = question(spec=spec(gradient_accumulation=accumulation, batch_size=2))
    best = choose_plan.options(asked)[0]
    tokens = best.step.rows * best.step.width
    run = Measure(best.settings, best.step, GB, tokens / taken, update_seconds=2.0)
    assert run.seconds == pytest.approx(1.0)
    found = choose_plan.judge(asked, [run]).option(best.settings)
    padded, batches = padded_tokens(asked.lengths, best.settings, LENGTH_BUCKET)
    computed = (padded + 24 * batches) / (tokens + 24)
    assert found.seconds == pytest.approx(computed + 2.0 * batches / accumulation)


def small(option: Option, rows: int, width: int, peak: int, speed: float) -> Measure:
    """Steps of a small shape in an option's way of computing."""
    settings = dataclasses.replace(option.settings, batch_size=rows)
    learned = option.step.learned * rows * width // (option.step.rows * option.step.width)
    return Measure(settings, Step(rows, width, learned), peak, speed)


def test_an_extrapolation_decides_over_an_estimate_and_a_measure_over_both() -> None:
    whole = {"spec": spec(loss_chunk=0, batch_size=4)}
    asked = question(**whole)
    best = choose_plan.options(asked)[0]
    rows, width = best.step.rows, best.step.width
    assert rows == 4
    probed = tuple(small(best, n, width, (600 + n * 100) * MB, 100.0) for n in (1, 2, 3))
    plan = planned(probed, **whole)
    assert (plan.degree, plan.margin, plan.measured_peak) == ("extrapolated", 0.06, 0)
    assert plan.predicted_peak == pytest.approx(1000 * MB, rel=1e-3)
    assert plan.tokens_per_second == pytest.approx(100.0)
    measured = Measure(best.settings, best.step, GB, tokens_per_second=100.0)
    plan = planned((*probed, measured), **whole)
    assert (plan.degree, plan.margin, plan.measured_peak) == ("measured", 0.03, GB)
    assert plan.predicted_peak == pytest.approx(1000 * MB, rel=1e-3)
    assert planned().degree == "estimated" and planned().expected_seconds == 0


def test_what_holds_less_logits_than_the_plan_does_is_not_extrapolated_from() -> None:
    """On a CPU as many as three chunks of logits exist at once: with fewer, the peak grows faster
    than with more.
    """
    asked = question(lengths=lengths((400, 848)))
    best = next(o for o in choose_plan.options(asked) if o.settings.loss_chunk)
    rows, width = best.step.rows, best.step.width
    assert best.step.learned > 3 * best.settings.loss_chunk
    step = Step(1, width, 2 * best.settings.loss_chunk)
    settings = dataclasses.replace(best.settings, batch_size=1)
    steep = Measure(settings, step, 100 * MB, 100.0)
    flat = [small(best, n, width, (600 + n * 100) * MB, 100.0) for n in range(2, rows)]
    peaks = [
        choose_plan.judge(asked, run).peak(best.settings, best.step)
        for run in ([steep, *flat], flat)
    ]
    assert peaks[0] == peaks[1]
    assert peaks[0][1] is Degree.EXTRAPOLATED


def test_no_curve_goes_through_a_peak_of_a_few_tokens() -> None:
    asked = question(spec=spec(loss_chunk=0, batch_size=2, gradient_checkpointing=False))
    best = choose_plan.options(asked)[0]
    tiny = small(best, 1, 96, 100 * MB, 100.0)
    larger = [small(best, 2, width, width * 5 * MB, 100.0) for width in (64, 80)]
    assert best.step.width == 96
    for run in (larger, [tiny, *larger]):
        peak, degree = choose_plan.judge(asked, run).peak(best.settings, best.step)
        assert degree is Degree.EXTRAPOLATED
        assert peak == pytest.approx(480 * MB, rel=0.03)
    _, degree = choose_plan.judge(asked, [tiny, larger[0]]).peak(best.settings, best.step)
    assert degree is Degree.ESTIMATED


def test_an_extrapolation_reaches_only_so_far() -> None:
    asked = question()
    best = choose_plan.options(asked)[0]
    probed = [small(best, 1, width, 600 * MB, 100.0) for width in (32, 64)]
    assert planned(tuple(probed)).degree == "estimated"


def test_noise_of_small_steps_makes_no_way_of_computing_faster_than_its_own_step() -> None:
    """By curves of their own the recomputed, which takes a fifth more, was said to take 4.0 s where
    the other takes 4.2, on data much shorter than the longest (phi, 51k words).
    """
    asked = question(lengths=lengths((96, 4), (16, 400)), spec=spec(batch_size=2, loss_chunk=0))
    whole = next(o for o in choose_plan.options(asked) if not o.settings.gradient_checkpointing)
    assert (whole.step.rows, whole.step.width) == (2, 96)
    recomputed = dataclasses.replace(
        whole, settings=dataclasses.replace(whole.settings, gradient_checkpointing=True)
    )
    measures = [
        small(option, rows, width, 600 * MB, rows * width / seconds)
        for option, rows, width, seconds in (
            (whole, 1, 96, 0.659),
            (whole, 2, 64, 0.719),
            (whole, 2, 80, 0.880),
            (recomputed, 2, 64, 0.900),
            (recomputed, 2, 80, 1.200),
        )
    ]
    measures += [
        Measure(option.settings, whole.step, 700 * MB, 192 / seconds)
        for option, seconds in ((whole, 1.088), (recomputed, 1.307))
    ]
    known = choose_plan.judge(asked, measures)
    times = [known.option(option.settings).seconds for option in (recomputed, whole)]
    assert times[0] / times[1] == pytest.approx(1.307 / 1.088)


@pytest.mark.parametrize("fixed", [0, 24, 200])
def test_an_epoch_is_told_by_a_micro_batch_of_its_mean_width(fixed: int) -> None:
    """By the heaviest alone, what has narrow micro-batches in chunks was said to be slower than it
    is (qwen3_moe): what a micro-batch takes beside its tokens was not known well enough.
    """
    data = lengths((241, 40), (33, 220))
    asked = question(lengths=data, spec=spec(batch_size=2, loss_chunk=0))
    best = choose_plan.options(asked)[0]
    tokens, batches = padded_tokens(data, best.settings)
    mean = choose_plan.judge(asked, []).times.untold_step(best.settings, best.step)
    assert mean is not None
    assert (best.step.width, mean.rows, mean.width, tokens) == (240, 2, 64, 64 * 2 * batches)
    alone = dataclasses.replace(best.settings, gradient_accumulation=1)
    measures = [
        Measure(
            alone if step == mean else best.settings,
            step,
            600 * MB,
            100 * step.rows * step.width / (step.rows * step.width + fixed),
        )
        for step in (mean, best.step)
    ]
    judge = choose_plan.judge(asked, measures)
    assert judge.times.untold_step(best.settings, best.step) is None
    assert judge.option(best.settings).seconds == pytest.approx((tokens + fixed * batches) / 100)


def test_a_step_of_a_few_tokens_corrects_no_estimate() -> None:
    asked = question(lengths=lengths((90, 448)), spec=spec(batch_size=4))
    best = choose_plan.options(asked)[0]
    tiny = small(best, 1, 48, 4 * GB, 100.0)
    peak, limit = estimated(asked, best), asked.budget.limit
    right = Measure(best.settings, best.step, peak, 100.0, limit=limit)
    assert choose_plan.judge(asked, [tiny]).correction > 2
    assert choose_plan.judge(asked, [tiny, right]).correction == pytest.approx(1.0)


def test_the_faster_of_two_that_were_measured_is_recommended() -> None:
    asked = question()
    four, two = (
        next(o for o in choose_plan.options(asked) if o.settings.batch_size == n) for n in (4, 2)
    )
    slow = Measure(four.settings, four.step, GB, tokens_per_second=100.0)
    fast = Measure(two.settings, two.step, GB // 2, tokens_per_second=200.0, outside=300 * MB)
    plan = planned((slow, fast))
    assert plan.settings.batch_size == 2
    assert (plan.measured_peak, plan.expected_seconds > 0) == (GB // 2, True)


def test_the_peak_before_probing_is_not_the_measured_one() -> None:
    best = choose_plan.options(question())[0]
    plan = planned((Measure(best.settings, best.step, GB, tokens_per_second=100.0),))
    assert plan.measured_peak == GB
    assert plan.predicted_peak == estimated(question(), best) != GB


def test_a_death_rules_out_what_takes_about_as_much_and_nothing_leaner() -> None:
    asked = question(lengths=lengths((400, 848)), budget=budget(8 * GB))
    before = choose_plan.options(asked)
    died = next(o for o in before if o.settings.batch_size == 2)
    death = Measure(died.settings, died.step, asked.budget.mlx, died=True)
    after = {_what(o): o for o in choose_plan.options(asked, (death,))}
    out = {_what(o) for o in after.values() if not choose_plan.fits(asked, o)}
    weights = asked.shape.weight_bytes
    limit = weights + 0.9 * (died.peak - weights)
    assert out == {_what(o) for o in before if o.peak > limit}
    assert all(after[_what(o)].peak == o.peak for o in before if _what(o) not in out)
    assert any(choose_plan.fits(asked, o) and o.settings.batch_size == 2 for o in after.values())


def test_a_death_counts_also_where_the_largest_array_lowered_the_limit() -> None:
    died = max(choose_plan.options(question()), key=lambda o: o.largest)
    asked = question(budget=budget(2 * died.largest))
    limit = memory_limit(asked, died.settings, died.step)
    assert 1.25 * limit < asked.budget.limit
    death = Measure(died.settings, died.step, limit, died=True)
    assert choose_plan.judge(asked, [death]).deaths


def test_what_was_measured_close_to_a_death_is_not_planned() -> None:
    asked = question(lengths=lengths((400, 848)), budget=budget(8 * GB))
    died, near, *_ = sorted(choose_plan.options(asked), key=lambda o: -o.peak)
    death = Measure(died.settings, died.step, asked.budget.mlx, died=True)
    seen = Measure(died.settings, died.step, 4 * GB, tokens_per_second=9.0)
    works = Measure(near.settings, near.step, int(3.99 * GB), tokens_per_second=9.0)
    plan = choose_plan.plan(asked, (death, seen, works))
    assert isinstance(plan, Plan) and _what_settings(plan.settings) != _what(near)


def test_the_newest_measure_of_a_setup_counts() -> None:
    best = choose_plan.options(question())[0]
    old, new = (
        Measure(best.settings, best.step, peak, tokens_per_second=9.0) for peak in (GB, 2 * GB)
    )
    assert planned((old, new)).measured_peak == 2 * GB


def test_a_death_is_forgiven_where_there_is_a_good_deal_more_memory() -> None:
    asked = question()
    best = choose_plan.options(asked)[0]
    tight = Measure(best.settings, best.step, asked.budget.mlx, died=True)
    early = Measure(best.settings, best.step, asked.budget.mlx // 2, died=True)
    assert planned((tight,)).settings != best.settings
    assert planned((early,)).settings.batch_size == best.settings.batch_size


def _what(option: Option) -> tuple[object, ...]:
    return _what_settings(option.settings)


def _what_settings(settings: TrainingSettings) -> tuple[object, ...]:
    names = ("batch_size", "gradient_checkpointing", "loss_chunk", "max_seq_length")
    return tuple(getattr(settings, name) for name in names)

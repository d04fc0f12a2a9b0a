"""What the steps that were run tell of an option: its peak, how surely, its time, and deaths."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest

from safetrain_shared.jobs import Plan
from safetrain_shared.settings import TrainingSettings
from safetraind.planner import choose_plan
from safetraind.planner.degree import Degree
from safetraind.planner.judge import memory_limit
from safetraind.planner.memory_estimate import predict
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
    small,
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


@pytest.mark.parametrize("learned", [96, 384])
def test_a_curve_has_the_logits_of_as_many_predictions_as_the_plan(learned: int) -> None:
    """By rows that learn three quarters of their tokens one that learns all was 6 % too low."""
    asked = question(spec=spec(loss_chunk=0, batch_size=1, gradient_checkpointing=False))
    settings = choose_plan.options(asked)[0].settings

    def peak(step: Step) -> int:
        return round(1.1 * predict(asked.runtime, settings, step).total)

    steps = [Step(1, width, width // 2) for width in (192, 288)]
    run = [Measure(settings, step, peak(step), 100.0) for step in steps]
    wanted = Step(1, 384, learned)
    found, degree = choose_plan.judge(asked, run).peak(settings, wanted)
    assert degree is Degree.EXTRAPOLATED
    assert found == pytest.approx(peak(wanted), rel=0.02)
    assert abs(peak(Step(1, 384, 192)) / peak(wanted) - 1) > 0.07


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

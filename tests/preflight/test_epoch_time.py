"""The time of an epoch, told by the steps that were run."""

from __future__ import annotations

import dataclasses

import pytest

from safetrain_shared.settings import LENGTH_BUCKET, TrainingSettings
from safetraind.planner import choose_plan
from safetraind.planner.batch_shapes import micro_batches, padded_tokens, scaled
from safetraind.planner.option import Option, Question
from safetraind.worker_messages.probe_messages import Measure, Step
from tests.preflight.facts import GB, MB, all_learned, lengths, question, small, spec


def seconds(asked: Question, option: Option, *measures: Measure) -> float:
    """The seconds of an epoch with this option, by these measures."""
    return choose_plan.judge(asked, measures).option(option.settings).seconds


def one_row(option: Option) -> TrainingSettings:
    return dataclasses.replace(option.settings, batch_size=1)


def taking(option: Option, rows: int, width: int, taken: float) -> Measure:
    """A micro-batch of that shape, in the option's way of computing, that took so many seconds."""
    return small(option, rows, width, 600 * MB, rows * width / taken)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_accumulation_spares_the_time_of_applying_gradients(accumulation: int) -> None:
    """A second to compute a micro-batch, two to apply.

    A micro-batch takes as long as 24 tokens beside its own.
    """
    chosen = spec(gradient_accumulation=accumulation, batch_size=2)
    asked = question(spec=chosen, lengths=all_learned(question().lengths))
    best = choose_plan.options(asked)[0]
    tokens = best.step.rows * best.step.width
    run = Measure(best.settings, best.step, GB, tokens / 3.0, update_seconds=2.0)
    assert run.seconds == pytest.approx(1.0)
    found = choose_plan.judge(asked, [run]).option(best.settings)
    padded, batches = padded_tokens(asked.lengths, best.settings, LENGTH_BUCKET)
    computed = (padded + 24 * batches) / (tokens + 24)
    assert found.seconds == pytest.approx(computed + 2.0 * batches / accumulation)


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


@pytest.mark.parametrize("curve", [0.0, 0.001])
@pytest.mark.parametrize("fixed", [0, 24, 200])
def test_each_micro_batch_takes_the_time_of_steps_of_its_size(fixed: int, curve: float) -> None:
    """By one step of mean width one row at a time was said to be faster than two, and was 8 to
    16 % slower: the narrowest take longer for each token than that, and so do the widest.
    """
    data = all_learned(lengths((241, 40), (33, 220)))
    asked = question(lengths=data, spec=spec(batch_size=2, loss_chunk=0))
    best = choose_plan.options(asked)[0]

    def taken(step: Step) -> float:
        return (fixed + step.tokens + curve * step.tokens**2) / 100

    times = choose_plan.judge(asked, []).times
    steps = [
        best.step,
        times.mean_step(best.settings, best.step),
        scaled(best.step, 1, 32),
    ]
    assert [(s.rows, s.width) for s in steps] == [(2, 240), (2, 64), (1, 32)]
    run = [taking(best, s.rows, s.width, taken(s)) for s in steps]
    real = sum(n * taken(s) for s, n in micro_batches(data, best.settings))
    assert seconds(asked, best, *run) == pytest.approx(real, rel=0.001 if not curve else 0.05)


@pytest.mark.parametrize(("vocabulary", "in_the_head"), [(1, False), (10**9, True)])
def test_only_predictions_that_count_take_time_in_the_head(
    vocabulary: int, in_the_head: bool
) -> None:
    """Two rows a micro-batch were said to take 2 % longer than one, for their padding, where they
    took 4 % less: the head was most of the model, and padding does not go through it (phi, 51k).
    """
    shape = dataclasses.replace(question().shape, vocabulary=vocabulary)
    asked = question(lengths=lengths((90, 41), (60, 33), (20, 51)), shape=shape)
    two = dataclasses.replace(choose_plan.options(asked)[0].settings, batch_size=2)
    tokens, batches = padded_tokens(asked.lengths, two)
    learned = sum(n * step.learned for step, n in micro_batches(asked.lengths, two))
    assert learned < 0.8 * tokens
    cost = choose_plan.judge(asked, []).times.padded_cost(two)
    assert cost == pytest.approx((learned if in_the_head else tokens) + 24 * batches, rel=0.01)


def test_every_token_takes_time_in_a_head_that_cannot_be_split_off() -> None:
    shape = dataclasses.replace(question().shape, vocabulary=10**9)
    asked = question(lengths=lengths((90, 41)), shape=shape, splits_head=False)
    settings = choose_plan.options(asked)[0].settings
    tokens, batches = padded_tokens(asked.lengths, settings)
    cost = choose_plan.judge(asked, []).times.padded_cost(settings)
    assert cost == pytest.approx(tokens + 24 * batches)


def test_one_step_that_is_far_off_does_not_tell_the_time() -> None:
    asked = question(lengths=lengths((160, 400)), spec=spec(batch_size=2, loss_chunk=0))
    best = choose_plan.options(asked)[0]
    right = [taking(best, 2, width, width / 100) for width in (112, 128, 144)]
    alike = seconds(asked, best, *right)
    slow = dataclasses.replace(right[-1], tokens_per_second=right[-1].tokens_per_second / 1.5)
    assert seconds(asked, best, *right[:-1], slow) == pytest.approx(alike, rel=0.03)


def test_a_step_that_is_three_times_as_wide_tells_what_a_micro_batch_takes_beside_its_tokens() -> (
    None
):
    """Times vary by a few percent: by steps of 288 and 576 tokens of the demo it was nothing."""
    data = all_learned(lengths((160, 400)))
    asked = question(lengths=data, spec=spec(batch_size=1, loss_chunk=0))
    best = choose_plan.options(asked)[0]
    two, one = (
        dataclasses.replace(best.settings, batch_size=n, gradient_accumulation=4 // n)
        for n in (2, 1)
    )
    for narrow, told in ((48, 100), (64, 24)):
        measures = [taking(best, 1, width, (width + 100) / 100) for width in (narrow, 160)]
        times = choose_plan.judge(asked, measures).times
        costs = times.padded_cost(one) - times.padded_cost(two)
        assert costs == pytest.approx(told * 200)  # so many micro-batches more


def test_a_micro_batch_is_told_by_a_step_about_as_large() -> None:
    asked = question(lengths=lengths((241, 40), (33, 220)), spec=spec(batch_size=1, loss_chunk=0))
    best = choose_plan.options(asked)[0]
    mean = choose_plan.judge(asked, []).times.mean_step(best.settings, best.step)
    assert (mean.rows, mean.width) == (1, 64)
    for width, told in ((48, True), (96, True), (32, False), (112, False)):
        times = choose_plan.judge(asked, [taking(best, 1, width, 1.0)]).times
        assert times.is_told(best.settings, best.step, mean) == told


def test_a_sample_of_an_epoch_run_in_one_way_tells_its_time_there() -> None:
    """Single steps of the way said 5 % less or more, and so the wrong plan was the fastest."""
    asked = question(lengths=lengths((241, 40), (33, 220)), spec=spec(batch_size=2, loss_chunk=0))
    best = choose_plan.options(asked)[0]
    epoch = micro_batches(asked.lengths, best.settings)
    assert len(epoch) == 2
    alone = [taking(best, 2, width, 9.0) for width in (160, 240)]
    sample = tuple((step, step.tokens / 50) for step, _ in epoch)
    whole = Measure(best.settings, best.step, GB, best.step.tokens / 5.0, sample=sample)
    real = sum(n * step.tokens / 50 for step, n in epoch)
    assert seconds(asked, best, *alone, whole) == pytest.approx(real, rel=0.3)
    exact = dataclasses.replace(whole, tokens_per_second=50.0)
    assert seconds(asked, best, *alone, exact) == pytest.approx(real)

    times = choose_plan.judge(asked, [*alone, exact]).times
    assert times.is_sampled(best.settings, best.step)
    assert not times.is_sampled(one_row(best), scaled(best.step, 1, 240))
    held_back = dataclasses.replace(
        exact, peak=2 * asked.budget.limit, limit=9 * asked.budget.limit
    )
    assert not choose_plan.judge(asked, [held_back]).times.is_sampled(best.settings, best.step)
    other = dataclasses.replace(asked, lengths=lengths((241, 40), (65, 220)))
    assert not choose_plan.judge(other, [exact]).times.is_sampled(best.settings, best.step)

"""Events into curves: what is superseded goes, what is thinned keeps every peak."""

from __future__ import annotations

import dataclasses
import math

from safetrain.views.curves import Curves, curves_of, smoothed, thinned
from safetrain_shared import events
from safetrain_shared.findings import Finding
from tests.report import runs

TOTAL, EPOCH = 100, 50


def measured(*bodies: tuple[int, events.Body]) -> Curves:
    return curves_of(runs.numbered(iter(bodies)))


def step(at: int, loss: float) -> events.StepDone:
    return runs.step(at, TOTAL, EPOCH, loss=loss)


def test_the_last_telling_of_a_step_stays() -> None:
    curves = measured(
        (1, step(10, 3.0)), (1, step(20, 2.0)), (2, step(20, 2.5)), (2, step(30, 1.0))
    )
    assert curves.line("loss") == [(10, 3.0), (20, 2.5), (30, 1.0)]


def test_what_lay_behind_the_checkpoint_is_gone_before_it_is_run_again() -> None:
    killed_at_40 = [(1, step(at, 2.0)) for at in (10, 20, 30, 40)]
    behind = [(1, runs.evaluated(40, TOTAL, EPOCH)), (1, runs.saved(40, EPOCH))]
    curves = measured(*killed_at_40, *behind, (2, step(20, 1.5)))
    assert curves.line("loss") == [(10, 2.0), (20, 1.5)]
    assert curves.evaluations == []
    assert curves.checkpoints == []


def test_an_evaluation_leaves_the_step_it_was_made_at() -> None:
    curves = measured(
        (1, step(10, 2.0)),
        (1, runs.evaluated(10, TOTAL, EPOCH)),
        (1, runs.saved(10, EPOCH)),
    )
    counts = (len(curves.steps), len(curves.evaluations), len(curves.checkpoints))
    assert counts == (1, 1, 1)
    assert curves.last_step == 10


def test_a_fallback_counts_from_the_next_step_on() -> None:
    curves = curves_of(runs.eventful())
    assert [(b.step, b.finding.code) for b in curves.fallbacks] == [(310, "backoff.micro_batch")]
    assert curves.plan is not None
    assert curves.plan.settings.batch_size == 1


def test_a_fallback_without_a_step_behind_it_stands_at_the_end() -> None:
    notice = events.Notice(Finding("backoff.loss_chunk"))
    assert [b.step for b in measured((1, step(10, 2.0)), (1, notice)).fallbacks] == [10]
    assert [b.step for b in measured((1, notice)).fallbacks] == [0]


def test_the_best_is_the_lowest_and_the_latest_of_equals() -> None:
    losses = [(10, 2.0), (20, 1.5), (30, 1.5), (40, math.nan)]
    bodies = [events.Evaluated(at, 0, at, loss, 5, True) for at, loss in losses]
    best = measured(*[(1, body) for body in bodies]).best
    assert best is not None
    assert best.step == 30


def test_what_is_not_finite_is_not_drawn() -> None:
    curves = measured((1, step(10, math.nan)), (1, step(20, math.inf)), (1, step(30, 1.0)))
    assert curves.line("loss") == [(30, 1.0)]


def test_epochs_begin_behind_the_last_step_of_the_one_before() -> None:
    assert curves_of(runs.eventful()).epochs == [(212, 1), (424, 2)]


def test_thinning_keeps_every_peak_and_both_ends() -> None:
    points = curves_of(runs.long(20_000)).line("loss")
    few = thinned(points, 500)
    assert len(few) <= 4 * 500
    assert few[0] == points[0]
    assert few[-1] == points[-1]
    assert (10_007, 40.0) in few
    assert min(v for _, v in few) == min(v for _, v in points)
    assert few == sorted(few)


def test_few_points_are_left_as_they_are() -> None:
    points = [(1, 2.0), (2, 1.0)]
    assert thinned(points, 10) == points
    assert thinned([], 10) == []
    assert smoothed(points) == []


def test_a_running_mean_keeps_a_straight_line_straight() -> None:
    line = [(at, 3.0 * at) for at in range(1000)]
    assert all(math.isclose(y, 3.0 * x, abs_tol=1e-6) for x, y in smoothed(line))


def test_the_mean_speed_is_tokens_by_time() -> None:
    slow, fast = runs.step(1, TOTAL, EPOCH), runs.step(2, TOTAL, EPOCH)
    slow = dataclasses.replace(slow, tokens=100, tokens_per_second=10.0)
    fast = dataclasses.replace(fast, tokens=200, tokens_per_second=100.0)
    assert math.isclose(measured((1, slow), (1, fast)).mean_speed, 200 / 11)
    assert Curves().mean_speed == 0.0

"""What the probe is to run next, decided from what was run before."""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import partial
from typing import Any

import pytest

from safetrain_shared.jobs import Plan
from safetraind.planner import choose_plan
from safetraind.planner.batch_shapes import micro_batches
from safetraind.planner.memory_estimate import holds_loss_alike, predict
from safetraind.planner.next_probe import next_probe
from safetraind.planner.option import Question
from safetraind.planner.ways import accumulates, same_way
from safetraind.worker_messages.probe_messages import Measure, Setup, Step
from tests.preflight.facts import GB, MB, SHAPE, SPEC, budget, lengths, question


def ran(asked: Question, setup: Setup, factor: float = 1.0, died: bool = False) -> Measure:
    """As if it had been run: the estimate times `factor`, at a speed that rows make better."""
    peak = predict(asked.runtime, setup.settings, setup.step).corrected(factor)
    if died:
        return Measure(setup.settings, setup.step, asked.budget.limit, died=True)
    return timed(Measure(setup.settings, setup.step, peak), setup, 1000.0 + 100 * setup.step.rows)


def timed(measure: Measure, setup: Setup, rate: float) -> Measure:
    """With its sample, all at so many tokens a second."""
    sample = tuple((step, step.tokens / rate) for step in setup.sample)
    return dataclasses.replace(measure, tokens_per_second=rate, sample=sample)


def probed(asked: Question, factor: float = 1.0) -> tuple[list[list[Setup]], list[Measure]]:
    """Rounds until nothing is left to run, and all that they found."""
    rounds: list[list[Setup]] = []
    measures: list[Measure] = []
    while setups := next_probe(asked, measures):
        assert len(rounds) < 8
        rounds.append(setups)
        measures += [ran(asked, setup, factor) for setup in setups]
    return rounds, measures


def long(**changes: Any) -> Question:
    return question(lengths=lengths((400, 848)), **changes)


def test_small_shapes_of_the_best_way_come_first_then_the_plan_itself() -> None:
    asked = long()
    best = choose_plan.options(asked)[0]
    (small, heaviest), measures = probed(asked)
    assert all(same_way(setup.settings, best.settings) for setup in small)
    assert [setup.step.rows for setup in small] == [1, 2, 3]
    assert all(setup.step.width == best.step.width for setup in small)
    assert heaviest[0].step == best.step
    of_one_row = [o for o in choose_plan.options(asked, measures) if o.step.rows == 1]
    assert choose_plan.judge(asked, measures).option(of_one_row[0].settings).seconds, (
        "two chunks are fewer than exist at once, but the curve tells their time"
    )
    plan = choose_plan.plan(asked, measures)
    assert isinstance(plan, Plan) and plan.degree == "measured"


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("longest", [30, 96, 130, 250])
def test_no_small_step_has_so_few_tokens_that_it_tells_nothing(rows: int, longest: int) -> None:
    spec = dataclasses.replace(SPEC, settings={"batch_size": rows})
    asked = question(lengths=lengths((longest, 100)), spec=spec)
    rounds, measures = probed(asked)
    plan = choose_plan.plan(asked, measures)
    assert isinstance(plan, Plan) and plan.degree == "measured"
    small = [setup.step for setups in rounds for setup in setups if setup.small]
    assert len(small) != 1 and all(step.rows * step.width >= 128 for step in small)
    if rows == 1:
        assert [step.width for step in small] == ([128, 192] if longest == 250 else [])
    assert len(rounds) == 1 + bool(small)


def test_small_shapes_attend_as_the_plan_does() -> None:
    """On a CPU rows of more than 512 tokens are computed in blocks."""
    asked = question(lengths=lengths((1024, 848)))
    (small, *_), _ = probed(asked)
    assert all(setup.step.width > 512 for setup in small)


def test_where_the_best_way_may_not_fit_the_next_ones_are_probed_with_it() -> None:
    asked = long(budget=budget(int(1.3 * GB)))
    (small, *_), measures = probed(asked)
    ways = [setup.settings for setup in small]
    assert {way.gradient_checkpointing for way in ways} == {False, True}
    plan = choose_plan.plan(asked, measures)
    assert isinstance(plan, Plan) and plan.degree == "measured"


@pytest.mark.parametrize("seconds", [math.inf, 75.0])
def test_where_time_is_short_a_plan_that_fits_is_measured_before_what_may_be_faster(
    seconds: float,
) -> None:
    """Quantized matrices are slow on a CPU, and their small shapes took all the time there was."""
    shape = dataclasses.replace(SHAPE, weight_bytes=SHAPE.float32_bytes // 8)
    asked = long(quantized=True, shape=shape)
    fast = [o for o in choose_plan.options(asked) if o.settings.dequantize]
    room = min(option.peak for option in fast) / 1.1  # none fits, but it may
    asked = dataclasses.replace(asked, budget=budget(round(room / 0.88)))
    first, measures, left = next_probe(asked, [], seconds), list[Measure](), seconds
    assert all(setup.settings.dequantize for setup in first), "the slower wait"
    while setups := next_probe(asked, measures, left):
        for setup in setups:
            is_fast = setup.settings.dequantize
            speed, factor = (1000.0, 1.5) if is_fast else (60.0, 1.0)
            left -= 2 * setup.step.tokens * (1 + accumulates(setup.settings)) / speed
            if left > 0:
                measures.append(timed(ran(asked, setup, factor), setup, speed))
        if left <= 0:
            break
    plan = choose_plan.plan(asked, measures)
    assert isinstance(plan, Plan) and plan.degree == "measured" and not plan.settings.dequantize
    slow = next(m for m in measures if not m.settings.dequantize)
    assert accumulates(slow.settings) == (seconds < math.inf), "a plan itself, or small shapes"


@pytest.mark.parametrize("known", [False, True])
def test_where_time_is_short_small_shapes_are_run_if_the_plan_itself_takes_longer(
    known: bool,
) -> None:
    """Where the largest of them was run, the others take less. They tell more than a step for which
    there is no time.
    """
    chosen = {"batch_size": 4, "loss_chunk": 0, "gradient_checkpointing": False}
    asked = question(lengths=lengths((400, 100)), spec=dataclasses.replace(SPEC, settings=chosen))
    best = choose_plan.options(asked)[0]
    alone = dataclasses.replace(best.settings, gradient_accumulation=1)
    steps = [Step(1, width, width // 2) for width in (48, 64)]  # they tell a time and no peak
    measures = [Measure(alone, step, 100 * MB, tokens_per_second=1.0) for step in steps]
    small = next_probe(asked, measures)
    assert small and all(setup.small for setup in small)
    if known:
        largest = max(small, key=lambda setup: setup.step.tokens)
        measures.append(Measure(largest.settings, largest.step, GB, tokens_per_second=1.0))
    found = next_probe(asked, measures, 10.0)
    assert all(setup.small for setup in found) == known


def test_an_estimate_that_was_too_high_refuses_nothing() -> None:
    least = choose_plan.smallest(long()).peak
    asked = long(budget=budget(int(1.05 * least)))
    assert not isinstance(choose_plan.plan(asked), Plan)
    _, measures = probed(asked, factor=0.8)
    plan = choose_plan.plan(asked, measures)
    assert isinstance(plan, Plan) and plan.degree == "measured"


def test_what_fits_nowhere_is_probed_once_and_refused() -> None:
    asked = long(budget=budget(int(0.9 * choose_plan.smallest(long()).peak)))
    rounds, measures = probed(asked)
    assert len(rounds) <= 2
    assert not isinstance(choose_plan.plan(asked, measures), Plan)


def test_weights_that_are_too_large_are_never_loaded() -> None:
    shape = dataclasses.replace(question().shape, weight_bytes=100 * MB)
    asked = question(quantized=True, shape=shape, budget=budget(500 * MB))
    rounds, _ = probed(asked)
    assert rounds and not any(setup.settings.dequantize for setups in rounds for setup in setups)


def test_after_a_death_only_what_is_a_good_deal_leaner_is_tried() -> None:
    asked = long(budget=budget(8 * GB))
    (small, heaviest), _ = probed(asked)
    run = [ran(asked, setup) for setup in small]
    death = ran(asked, heaviest[0], died=True)
    (next_one, *_) = next_probe(asked, [*run, death])
    dead = predict(asked.runtime, heaviest[0].settings, heaviest[0].step)
    lean = predict(asked.runtime, next_one.settings, next_one.step)
    assert lean.total - lean.weights <= 0.75 * (dead.total - dead.weights)


def test_what_is_known_is_not_run_again() -> None:
    asked = long()
    _, measures = probed(asked)
    assert next_probe(asked, measures) == []
    more = dataclasses.replace(asked, budget=budget(9 * GB))
    assert next_probe(more, measures) == []


def test_a_loss_in_chunks_has_several_chunks_in_every_small_shape() -> None:
    (small, *_), _ = probed(long())
    assert all(s.settings.loss_chunk == 0 or s.step.learned > 128 for s in small)


@pytest.mark.parametrize("longest", range(80, 720, 64))
def test_the_peak_of_a_loss_in_chunks_is_told_by_steps_that_hold_as_many(longest: int) -> None:
    asked = question(lengths=lengths((longest, 848)))
    best = choose_plan.options(asked)[0]
    alike = partial(holds_loss_alike, asked.runtime, best.settings, best.step.learned)
    (small, *_), _ = probed(asked)
    of_best = [s.step for s in small if same_way(s.settings, best.settings)]
    assert len(of_best) >= 2 and all(s.width * s.rows < 4 * best.step.width for s in of_best)
    share = best.step.learned / (best.step.rows * best.step.width)
    widths = [w for w in range(16, best.step.width, 16) if alike(int(share * best.step.rows * w))]
    assert sum(alike(step.learned) for step in of_best) >= 2 or len(widths) < 2


def test_what_is_about_as_fast_is_measured_beside_the_best_where_its_step_is_quick() -> None:
    asked = long()
    rounds: dict[int, list[list[Setup]]] = {1: [], 100: []}
    for slower, found in rounds.items():
        measures: list[Measure] = []
        while setups := next_probe(asked, measures):
            found.append(setups)
            for setup in setups:
                rate = (1000.0 + setup.step.rows) / slower  # rows make hardly a difference
                measures.append(timed(ran(asked, setup), setup, rate))
    assert any(setup.step.rows < 4 for setup in rounds[1][1])
    assert [setup.step.rows for setup in rounds[100][1]] == [4]


def test_small_steps_are_of_one_micro_batch() -> None:
    asked = question(
        lengths=lengths((300, 100)),
        spec=dataclasses.replace(SPEC, settings={"batch_size": 2, "gradient_accumulation": 4}),
    )
    (small, heaviest), _ = probed(asked)
    assert len(small) >= 2 and all(setup.settings.gradient_accumulation == 1 for setup in small)
    assert [setup.settings.gradient_accumulation for setup in heaviest] == [4]


@pytest.mark.parametrize("asked", [question(), long()], ids=["other way", "fewer chunks"])
def test_what_is_known_by_its_cost_alone_is_measured_where_it_may_be_faster(
    asked: Question,
) -> None:
    """Rows of 96 tokens in threes and fours go through the head in chunks, alone whole. Of 416 each
    alone has fewer chunks than several at once, so that their peaks say nothing of its own.
    """
    measures: list[Measure] = []
    while setups := next_probe(asked, measures):
        for setup in setups:
            alone = setup.settings.effective_batch == 4 or not setup.settings.loss_chunk
            same = setup.step.rows == 1 and setup.step.width == 416  # wherever it is run
            quick = same or (alone and setup.step.rows < 4)
            run = ran(asked, setup)
            measures.append(timed(run, setup, 3000.0) if quick else run)
    plan = choose_plan.plan(asked, measures)
    assert isinstance(plan, Plan) and plan.degree == "measured"
    assert plan.settings.batch_size < 4


@pytest.mark.parametrize("over", [1.2, 1.4])
def test_what_is_faster_is_tried_though_its_estimate_has_no_room(over: float) -> None:
    """Its step under a larger budget told its time, and nothing of the memory it takes under this.
    Estimates of what fitted were up to 1.3 times as high.
    """
    chosen = {"batch_size": 2, "loss_chunk": 0}
    ample = long(spec=dataclasses.replace(SPEC, settings=chosen))
    faster = next(o for o in choose_plan.options(ample) if not o.settings.gradient_checkpointing)
    recomputed = dataclasses.replace(faster.settings, gradient_checkpointing=True)
    leaner = choose_plan.judge(ample, []).option(recomputed)
    room = 0.88 * faster.peak / over
    asked = dataclasses.replace(ample, budget=budget(round(faster.peak / over / 0.88)))
    assert leaner.peak < room < faster.peak
    sample = tuple(
        (step, step.tokens / 1000) for step, _ in micro_batches(asked.lengths, recomputed)
    )
    limit = asked.budget.limit
    measures = [
        Measure(faster.settings, faster.step, 2 * faster.peak, 1300.0, limit=20 * faster.peak),
        Measure(recomputed, leaner.step, leaner.peak, 1000.0, limit=limit, sample=sample),
    ]
    tried = [(s.settings, s.step) for s in next_probe(asked, measures)]
    assert tried == ([(faster.settings, faster.step)] if over == 1.2 else [])
    for peak, fits in ((asked.budget.mlx // 2, True), (2 * asked.budget.mlx, False)):
        known = [*measures, Measure(faster.settings, faster.step, peak, 1300.0, limit=peak)]
        plan = choose_plan.plan(asked, known)
        assert isinstance(plan, Plan)
        assert plan.settings.gradient_checkpointing != fits


def test_a_plan_is_run_with_narrower_steps_of_its_data_and_small_steps_are_not() -> None:
    asked = question(lengths=lengths((250, 100), (200, 100), (40, 100)))
    rounds, _ = probed(asked)
    assert len(rounds) >= 2
    for setup in itertools.chain(*rounds):
        is_plan = setup.settings.effective_batch == 4 and setup.step.width == 256
        assert [step.width for step in setup.narrower] == ([208] if is_plan else [])
        assert setup.small != is_plan


@pytest.mark.parametrize("short", [40, 200])
def test_a_micro_batch_of_mean_width_is_run_beside_a_long_plan_where_no_other_tells_its_time(
    short: int,
) -> None:
    asked = question(lengths=lengths((400, 20), (short, 400)))
    measures: list[Measure] = []
    beside = next_probe(asked, measures)
    while all(setup.small for setup in beside):
        assert beside
        measures += [timed(ran(asked, setup), setup, 50.0) for setup in beside]
        beside = next_probe(asked, measures)
    assert {setup.step.width for setup in beside} == ({64, 416} if short == 40 else {416})
    assert not any(setup.sample for setup in beside)


def test_quick_plans_are_run_over_micro_batches_of_the_data() -> None:
    asked = question(lengths=lengths((400, 20), (200, 40), (40, 400)))
    rounds, measures = probed(asked)
    plans = [setup for setups in rounds for setup in setups if not setup.small]
    assert len(plans) > 1
    for setup in plans:
        rows = setup.settings.batch_size
        assert {(s.rows, s.width) for s in setup.sample} == {(rows, n) for n in (416, 208, 48)}
    plan = choose_plan.plan(asked, measures)
    assert isinstance(plan, Plan) and plan.degree == "measured"


def test_where_more_plans_were_run_than_are_compared_none_is_run() -> None:
    """Those of earlier budgets count, too."""
    asked = long(effective_batch=64, budget=budget(64 * GB))
    close = [o for o in choose_plan.options(asked) if not o.settings.gradient_checkpointing]
    known: list[Measure] = []
    for option in close[:5]:
        epoch = micro_batches(asked.lengths, option.settings)
        setup = Setup(option.settings, option.step, sample=tuple(step for step, _ in epoch))
        known.append(timed(ran(asked, setup), setup, 1e5))
        assert len(known) < 4 or not next_probe(asked, known)


def test_what_computes_its_layers_twice_is_no_contender_of_what_does_not() -> None:
    """A busy machine made a plan seem so slow that it was run, though it only saves memory."""
    chosen = {"loss_chunk": 0, "batch_size": 4}
    asked = long(spec=dataclasses.replace(SPEC, settings=chosen))
    best = next(o for o in choose_plan.options(asked) if not o.settings.gradient_checkpointing)
    epoch = micro_batches(asked.lengths, best.settings)
    setup = Setup(best.settings, best.step, sample=tuple(step for step, _ in epoch))
    recomputed = dataclasses.replace(best.settings, gradient_checkpointing=True)
    told = [
        timed(ran(asked, other), other, 950.0)
        for rows in (1, 2, 3)
        for other in [Setup(recomputed, Step(rows, best.step.width, rows * best.step.width // 2))]
    ]
    measures = [timed(ran(asked, setup), setup, 1000.0), *told]
    assert not any(s.settings.gradient_checkpointing for s in next_probe(asked, measures))


def test_after_a_death_a_plan_that_fits_is_compared_with_no_other() -> None:
    """Each plan that dies ends a process, and what was to be run after it."""
    asked = long(budget=budget(8 * GB))
    (small, heaviest), _ = probed(asked)
    assert len(heaviest) > 1
    measures = [ran(asked, setup) for setup in small]
    measures.append(ran(asked, heaviest[0], died=True))
    while setups := next_probe(asked, measures):
        assert all(setup.small for setup in setups) or sum(not s.small for s in setups) == 1
        measures += [ran(asked, setup) for setup in setups]
    plan = choose_plan.plan(asked, measures)
    assert isinstance(plan, Plan) and plan.degree == "measured"


def test_a_known_peak_is_not_measured_again_where_there_is_no_other_plan() -> None:
    """That of a training has no sample with it, and was replaced by that of a probe."""
    chosen = {"loss_chunk": 0, "batch_size": 4, "gradient_checkpointing": False}
    asked = long(spec=dataclasses.replace(SPEC, settings=chosen))
    (only,) = choose_plan.options(asked)
    assert next_probe(asked, [ran(asked, Setup(only.settings, only.step))]) == []


def test_a_slow_machine_runs_fewer_of_them() -> None:
    data = lengths(*((width, 4) for width in range(17, 402, 16)))
    numbers = []
    for rate in (1000.0, 400.0):
        chosen = {"batch_size": 1, "loss_chunk": 0, "gradient_checkpointing": False}
        asked = question(lengths=data, spec=dataclasses.replace(SPEC, settings=chosen))
        small = next_probe(asked, [])
        (plan,) = next_probe(asked, [timed(ran(asked, setup), setup, rate) for setup in small])
        numbers.append(len(plan.sample))
    assert numbers == [16, 9]


@pytest.mark.parametrize(
    ("speed", "faster", "is_run"),
    [(1000, 0.9, True), (1000, 0.8, False), (100, 1.045, False), (100, 1.08, True)],
)
def test_what_may_be_faster_than_what_was_measured_is_run_too(
    speed: float, faster: float, is_run: bool
) -> None:
    """Where steps are quick, even if it is said to be somewhat slower: plans at 90 % of the best
    speed were left. Long steps are timed but once or twice, so that their times vary by more.
    """
    chosen = {"loss_chunk": 0, "gradient_checkpointing": False}
    asked = long(spec=dataclasses.replace(SPEC, settings=chosen))
    of_four, of_two, of_one = (
        next(o for o in choose_plan.options(asked) if o.settings.batch_size == rows)
        for rows in (4, 2, 1)
    )
    measures = [Measure(of_four.settings, of_four.step, of_four.peak, speed)]
    for option, share in ((of_two, faster), (of_one, 0.8)):
        alone = dataclasses.replace(option.settings, gradient_accumulation=1)
        measures.append(Measure(alone, option.step, option.peak, speed * share))
    wanted = [setup.step for setup in next_probe(asked, measures)]
    assert (of_two.step in wanted) == is_run


def test_no_small_step_is_asked_for_twice() -> None:
    for longest in range(96, 512, 16):
        for short in (longest, 40):  # the mean step is that of a narrow row too
            setups = next_probe(question(lengths=lengths((longest, 8), (short, 848))), [])
            assert len(set(setups)) == len(setups)


def test_a_step_of_shorter_sequences_does_not_end_the_search() -> None:
    """Half the tokens take half the time: the leanest step was taken for the fastest plan."""
    spec = dataclasses.replace(
        SPEC, allow_shorter=True, settings={"batch_size": 1, "loss_chunk": 0, "num_epochs": 1}
    )
    asked = question(lengths=lengths((256, 100)), spec=spec)
    faster, recomputed = (
        dataclasses.replace(choose_plan.options(asked)[0].settings, gradient_checkpointing=lean)
        for lean in (False, True)
    )
    leanest = choose_plan.smallest(asked).step.width
    assert leanest < 256
    run = [
        (faster, 128),
        (faster, 192),
        (recomputed, leanest),
        (recomputed, 192),
        (recomputed, 256),
    ]
    measures = [
        dataclasses.replace(
            ran(asked, Setup(settings, Step(1, width, width // 2))),
            tokens_per_second=700.0 if settings.gradient_checkpointing else 1100.0,
        )
        for settings, width in run
    ]
    (setup,) = next_probe(asked, measures)
    assert setup.settings == faster and setup.step == Step(1, 256, 128)


def test_layers_are_not_computed_twice_to_save_time() -> None:
    rounds, _ = probed(question())
    assert not any(s.settings.gradient_checkpointing for setups in rounds for s in setups)

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import Plan
from safetraind.preflight import planner
from safetraind.preflight.budget import Budget, budget_for
from safetraind.preflight.facts import Device
from safetraind.preflight.option import Measure
from safetraind.preflight.shapes import compiled_shapes, heaviest_step, padded, padded_tokens
from safetraind.worker.training import batches
from tests.preflight.facts import GB, LINUX, MB, METAL, SPEC, facts, lengths, question


def planned(measures: tuple[Measure, ...] = (), **changes: Any) -> Plan:
    answer = planner.plan(question(**changes), measures)
    assert isinstance(answer, Plan), answer
    return answer


def spec(**settings: Any) -> Any:
    return dataclasses.replace(SPEC, settings=settings)


def budget(mlx: int) -> Budget:
    return Budget(worker=mlx + 500 * MB, cache=16 * MB, mlx=mlx)


def test_the_tier_gives_effective_batch_and_rate() -> None:
    settings = planned(available=40 * GB).settings
    assert (settings.effective_batch, settings.learning_rate) == (8, 5e-4)
    settings = planned(available=7 * GB).settings
    assert (settings.effective_batch, settings.learning_rate) == (4, 2e-4)


def test_sequences_are_as_long_as_the_data_and_no_longer() -> None:
    assert planned(lengths=lengths((30, 700), (90, 100))).settings.max_seq_length == 96
    assert planned(lengths=lengths((30, 700), (700, 100))).settings.max_seq_length == 704


def test_tiny_data_gets_more_steps_with_a_smaller_rate() -> None:
    plan = planned(available=20 * GB, samples=221)
    assert plan.settings.effective_batch == 4
    assert plan.settings.learning_rate == pytest.approx(2.5e-4)
    assert plan.total_steps == 56 * 3
    assert "plan.tiny_data" in {reason.code for reason in plan.reasons}


def test_warm_up_is_at_most_a_tenth_of_the_run() -> None:
    assert planned(available=20 * GB, samples=221).settings.warmup_steps == 16
    assert planned(samples=8480, lengths=lengths((40, 8480))).settings.warmup_steps == 50


def test_the_users_choices_stand() -> None:
    chosen = {
        "batch_size": 3,
        "gradient_accumulation": 2,
        "max_seq_length": 64,
        "learning_rate": 1e-5,
        "gradient_checkpointing": True,
        "loss_chunk": 128,
        "lora_layers": 4,
    }
    settings = planned(spec=spec(**chosen)).settings
    assert {name: getattr(settings, name) for name in chosen} == chosen


def test_a_chosen_batch_keeps_the_rest_of_the_effective_batch() -> None:
    settings = planned(available=20 * GB, samples=4000, spec=spec(batch_size=1)).settings
    assert (settings.batch_size, settings.gradient_accumulation) == (1, 2)


def test_less_memory_gives_smaller_micro_batches_of_the_same_effective_batch() -> None:
    rooms = [int(gigabytes * GB) for gigabytes in (8, 2.2, 1.6, 1.2, 1.0)]
    plans = [planned(budget=budget(room), lengths=lengths((400, 848))) for room in rooms]
    assert {plan.settings.effective_batch for plan in plans} == {4}
    peaks = [plan.predicted_peak for plan in plans]
    assert peaks == sorted(peaks, reverse=True)
    assert all(plan.predicted_peak <= room for plan, room in zip(plans, rooms, strict=True))
    assert not plans[0].settings.gradient_checkpointing
    assert plans[-1].settings.gradient_checkpointing


def test_shorter_sequences_come_only_where_the_longest_do_not_fit() -> None:
    long = lengths((100, 800), (4000, 48))
    plan = planned(budget=budget(int(1.3 * GB)), lengths=long)
    assert plan.settings.max_seq_length < 4000
    assert plan.samples_cut == 48
    assert {"plan.shortened", "plan.cuts"} <= {reason.code for reason in plan.reasons}


def test_sequences_below_the_tiers_length_need_the_users_leave() -> None:
    asked = question(budget=budget(800 * MB), lengths=lengths((500, 848)))
    assert isinstance(planner.plan(asked), Finding)
    allowed = dataclasses.replace(asked, spec=dataclasses.replace(SPEC, allow_shorter=True))
    plan = planner.plan(allowed)
    assert isinstance(plan, Plan) and plan.settings.max_seq_length < 500


def test_what_cannot_fit_is_refused_with_a_change_that_would() -> None:
    refused = planner.plan(question(budget=budget(800 * MB), lengths=lengths((500, 848))))
    assert isinstance(refused, Finding)
    assert refused.blocks and refused.status is Status.FAILED
    assert refused.code in ("plan.refused_layers", "plan.refused_length", "plan.refused_both")
    changes = {
        {"layers": "lora_layers", "length": "max_seq_length"}[name]: value
        for name, value in refused.args.items()
        if name in ("layers", "length")
    }
    changed = question(budget=budget(800 * MB), lengths=lengths((500, 848)), spec=spec(**changes))
    assert isinstance(planner.plan(changed), Plan)


def test_a_model_too_large_for_anything_is_refused_as_such() -> None:
    refused = planner.plan(question(budget=budget(400 * MB)))
    assert isinstance(refused, Finding) and refused.code == "plan.refused_model"


def test_quantized_weights_become_float32_on_a_cpu_where_they_fit() -> None:
    assert planned(quantized=True).settings.dequantize
    assert not planned(quantized=True, device="metal").settings.dequantize
    small = dataclasses.replace(question().shape, weight_bytes=100 * MB)
    tight = planned(quantized=True, shape=small, budget=budget(500 * MB))
    assert not tight.settings.dequantize


def test_a_measure_decides_over_a_rehearsal_and_that_over_an_estimate() -> None:
    asked = question()
    best = planner.options(asked)[0]
    other = next(o for o in planner.options(asked) if o.settings.batch_size == 2)
    rehearsed = Measure(best.settings, best.step, GB)
    slow = Measure(best.settings, best.step, GB, tokens_per_second=100.0)
    fast = Measure(other.settings, other.step, GB // 2, tokens_per_second=200.0, outside=300 * MB)
    assert planned((rehearsed,)).predicted_peak == GB
    assert planned((rehearsed,)).measured_peak == 0
    plan = planned((slow, fast, rehearsed))
    assert plan.settings.batch_size == 2
    assert (plan.measured_peak, plan.tokens_per_second) == (GB // 2, 200.0)
    assert plan.expected_seconds > 0


def test_a_setup_that_was_measured_too_large_is_not_planned() -> None:
    best = planner.options(question())[0]
    plan = planned((Measure(best.settings, best.step, 11 * GB, tokens_per_second=1e6),))
    assert plan.settings.batch_size != best.settings.batch_size or plan.settings != best.settings


def test_the_reason_begins_with_the_tier() -> None:
    assert planned(available=7 * GB).reasons[0].code == "tier.limited"
    assert planned().reasons[-1].code == "plan.predicted"


def test_plain_text_is_learned_whole() -> None:
    assert not planned(text_only=True).settings.mask_prompt
    assert planned().settings.mask_prompt


def test_a_budget_leaves_room_for_the_worker_and_the_cache() -> None:
    found = budget_for(dataclasses.replace(SPEC, memory_budget=2 * GB), facts(host=LINUX), 400 * MB)
    assert found.worker == 2 * GB
    assert found.mlx == 2 * GB - 400 * MB - found.cache
    assert found.room(measured=False) < found.room(measured=True) < found.mlx


def test_a_budget_on_metal_stays_below_the_working_set() -> None:
    small = dataclasses.replace(METAL, working_set=2 * GB)
    found = budget_for(SPEC, facts(device=small))
    assert found.mlx < 2 * GB and found.wired <= 2 * GB
    assert budget_for(SPEC, facts(device=Device("cpu"))).wired == 0


@pytest.mark.parametrize("length", [1, 31, 32, 33, 255, 256, 257, 511, 1000, 4097])
def test_padding_is_the_trainers(length: int) -> None:
    assert padded(length) == batches.padded(length, 32)


def test_tokens_with_padding_are_counted_as_batches_make_them() -> None:
    # Widths 96 (3 samples) and 32 (5): with 2 rows 96|96, 96|32, 32|32, 32|32.
    counted = lengths((20, 5), (90, 3))
    assert padded_tokens(counted, 512, 2) == (2 * (96 + 96 + 32 + 32), 4)
    assert padded_tokens(counted, 512, 1) == (3 * 96 + 5 * 32, 8)


def test_the_heaviest_step_is_the_widest_with_the_most_to_learn() -> None:
    step = heaviest_step(lengths((20, 50), (200, 3)), 512, 2, fused=False)
    assert (step.rows, step.width) == (2, 224)
    assert step.learned == 224  # 2 × 100 answers, rounded up to quarters of 448
    cut = heaviest_step(lengths((20, 50), (200, 3)), 64, 2, fused=False)
    assert cut.width == 64


def test_compiled_shapes_are_bounded_by_the_lengths_there_are() -> None:
    settings = planned().settings
    assert compiled_shapes(lengths((20, 5), (90, 3)), settings) <= 4
    packed = dataclasses.replace(settings, packing=True)
    assert compiled_shapes(lengths((20, 5), (90, 3)), packed) == 1

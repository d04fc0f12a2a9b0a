from __future__ import annotations

import dataclasses

import pytest

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import Plan
from safetrain_shared.settings import LENGTH_BUCKET, LOSS_CHUNK, TrainingSettings
from safetraind.planner import choose_plan
from safetraind.planner.batch_shapes import counted_rows, widths
from safetraind.planner.budget import Budget, budget_for, trace_bytes
from safetraind.planner.degree import Degree
from safetraind.worker_messages.probe_messages import Device, Measure
from tests.preflight.facts import (
    GB,
    LINUX,
    MB,
    METAL,
    SPEC,
    all_learned,
    budget,
    estimated,
    facts,
    lengths,
    planned,
    question,
    spec,
)


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
    assert (plan.total_steps, plan.settings.num_epochs) == (56 * 6, 6)
    assert plan.settings.early_stopping == 0, "nothing to validate on"
    assert {"plan.tiny_data", "plan.epochs_texts"} <= {reason.code for reason in plan.reasons}


@pytest.mark.parametrize(
    ("answers", "samples", "epochs", "code"),
    [
        ({"distinct": 221}, 221, 6, "plan.epochs_texts"),
        ({"distinct": 4}, 221, 4, "plan.epochs_labels"),
        ({"distinct": 221, "structured": 221}, 221, 4, "plan.epochs_structured"),
        ({"distinct": 30}, 30, 10, "plan.epochs_texts"),  # no more: it would be learned by heart
        ({"distinct": 848}, 848, 3, ""),
    ],
)
def test_epochs_follow_from_size_and_kind_of_the_data(
    answers: dict[str, int], samples: int, epochs: int, code: str
) -> None:
    counted = dataclasses.replace(lengths((90, samples)), **answers)
    valid = lengths((90, 40))
    plan = planned(available=20 * GB, samples=samples, lengths=counted, valid=valid)
    assert plan.settings.num_epochs == epochs
    assert plan.settings.early_stopping == (3 if code else 0)
    assert [r.code for r in plan.reasons if r.code.startswith("plan.epochs")] == [code][
        : bool(code)
    ]
    chosen = planned(spec=spec(num_epochs=2), samples=samples, lengths=counted, valid=valid)
    assert (chosen.settings.num_epochs, chosen.settings.early_stopping) == (2, 0)


def test_warm_up_is_at_most_a_tenth_of_the_run() -> None:
    assert planned(available=20 * GB, samples=221).settings.warmup_steps == 33
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
    assert (settings.batch_size, settings.gradient_accumulation) == (1, 8)


def test_a_chosen_accumulation_keeps_the_rest_of_the_effective_batch() -> None:
    settings = planned(available=20 * GB, spec=spec(gradient_accumulation=4)).settings
    assert (settings.batch_size, settings.gradient_accumulation) == (2, 4)
    plan = planned(available=12 * GB, spec=spec(gradient_accumulation=8))
    assert (plan.settings.batch_size, plan.settings.gradient_accumulation) == (1, 8)
    assert "plan.other_batch" in {reason.code for reason in plan.reasons}


def test_the_effective_batch_is_given_up_only_where_it_does_not_fit() -> None:
    chosen = spec(gradient_accumulation=1, loss_chunk=0, gradient_checkpointing=False)
    roomy = planned(spec=chosen, lengths=lengths((400, 848)))
    assert roomy.settings.batch_size == 4
    tight = planned(spec=chosen, lengths=lengths((400, 848)), budget=budget(int(2.2 * GB)))
    assert tight.settings.batch_size < 4


def test_less_memory_gives_smaller_micro_batches_of_the_same_effective_batch() -> None:
    rooms = [int(gigabytes * GB) for gigabytes in (8, 2.2, 1.6, 1.2, 1.0)]
    plans = [planned(budget=budget(room), lengths=lengths((400, 848))) for room in rooms]
    assert {plan.settings.effective_batch for plan in plans} == {4}
    peaks = [plan.predicted_peak for plan in plans]
    assert peaks == sorted(peaks, reverse=True)
    assert all(plan.predicted_peak <= room for plan, room in zip(plans, rooms, strict=True))
    assert not plans[0].settings.gradient_checkpointing
    assert plans[-1].settings.gradient_checkpointing


def test_what_the_model_cannot_be_trained_with_is_turned_off_and_told() -> None:
    tight = budget(1300 * MB)
    asked = question(budget=tight, lengths=lengths((500, 848)), spec=spec(packing=True))
    assert planned(budget=tight, lengths=lengths((500, 848))).settings.gradient_checkpointing
    unable = dataclasses.replace(
        asked, unsupported=frozenset({"packing", "gradient_checkpointing"})
    )
    for option in choose_plan.options(unable):
        assert not option.settings.packing and not option.settings.gradient_checkpointing
    plan = choose_plan.plan(dataclasses.replace(unable, budget=budget(8 * GB)))
    assert isinstance(plan, Plan) and not plan.settings.packing
    told = {reason.code: reason.status for reason in plan.reasons}
    assert told["plan.without_packing"] is Status.WARNING  # the user asked for it
    assert told["plan.without_gradient_checkpointing"] is Status.INFO


def test_shorter_sequences_come_only_where_the_longest_do_not_fit() -> None:
    long = lengths((100, 800), (4000, 48))
    plan = planned(budget=budget(int(1.3 * GB)), lengths=long)
    assert plan.settings.max_seq_length < 4000
    assert plan.samples_cut == 48
    assert {"plan.shortened", "plan.cuts"} <= {reason.code for reason in plan.reasons}


def test_sequences_below_the_tiers_length_need_the_users_leave() -> None:
    asked = question(budget=budget(700 * MB), lengths=lengths((500, 848)))
    assert isinstance(choose_plan.plan(asked), Finding)
    allowed = dataclasses.replace(asked, spec=dataclasses.replace(SPEC, allow_shorter=True))
    plan = choose_plan.plan(allowed)
    assert isinstance(plan, Plan) and plan.settings.max_seq_length < 500


# What the estimate was off by, where the leanest way was measured.
@pytest.mark.parametrize("factor", [None, 1.02, 1.05])
def test_what_cannot_fit_is_refused_with_a_change_that_would(factor: float | None) -> None:
    asked = question(budget=budget(700 * MB), lengths=lengths((500, 848)))
    least = choose_plan.smallest(asked)
    seen = (
        () if factor is None else (Measure(least.settings, least.step, int(factor * least.peak)),)
    )
    refused = choose_plan.plan(asked, seen)
    assert isinstance(refused, Finding)
    assert refused.blocks and refused.status is Status.FAILED
    assert refused.code in ("plan.refused_layers", "plan.refused_length", "plan.refused_both")
    changes = {
        {"layers": "lora_layers", "length": "max_seq_length"}[name]: value
        for name, value in refused.args.items()
        if name in ("layers", "length")
    }
    followed = dataclasses.replace(asked, spec=spec(**changes))
    assert isinstance(choose_plan.plan(followed, seen), Plan)


@pytest.mark.parametrize("chosen", [4096, 48])
def test_a_batch_too_large_is_refused_with_one_that_fits(chosen: int) -> None:
    asked = question(budget=budget(1500 * MB), spec=spec(batch_size=chosen))
    refused = choose_plan.plan(asked)
    assert isinstance(refused, Finding) and refused.code == "plan.refused_batch"
    rows = refused.args["rows"]
    assert isinstance(rows, int) and rows < chosen
    plan = choose_plan.plan(dataclasses.replace(asked, spec=spec(batch_size=rows)))
    assert isinstance(plan, Plan)


def test_a_model_too_large_for_anything_is_refused_as_such() -> None:
    refused = choose_plan.plan(question(budget=budget(400 * MB)))
    assert isinstance(refused, Finding) and refused.code == "plan.refused_model"


def test_quantized_weights_become_float32_on_a_cpu_where_they_fit() -> None:
    assert planned(quantized=True).settings.dequantize
    assert not planned(quantized=True, device="metal").settings.dequantize
    small = dataclasses.replace(question().shape, weight_bytes=100 * MB)
    tight = planned(quantized=True, shape=small, budget=budget(500 * MB))
    assert not tight.settings.dequantize


def test_large_logits_go_through_the_head_in_chunks_and_small_ones_whole() -> None:
    large = planned(lengths=lengths((400, 848)))  # 4 × 49152 × 4 × 200 bytes
    assert large.settings.loss_chunk == LOSS_CHUNK
    assert "plan.loss_chunk" in {reason.code for reason in large.reasons}
    small = planned(shape=dataclasses.replace(question().shape, vocabulary=1000))
    assert small.settings.loss_chunk == 0
    assert planned(lengths=lengths((400, 848)), spec=spec(loss_chunk=0)).settings.loss_chunk == 0


def test_no_array_is_larger_than_a_buffer_of_the_device() -> None:
    asked = question(device="metal", lengths=lengths((400, 848)), spec=spec(loss_chunk=0))
    usual = choose_plan.plan(asked)
    held = choose_plan.plan(dataclasses.replace(asked, largest_buffer=100 * MB))
    assert isinstance(usual, Plan) and isinstance(held, Plan)
    assert (usual.settings.batch_size, held.settings.batch_size) == (4, 2)
    assert held.settings.effective_batch == usual.settings.effective_batch
    assert "plan.largest_buffer" in {reason.code for reason in held.reasons}
    assert "plan.largest_buffer" not in {reason.code for reason in usual.reasons}
    refused = choose_plan.plan(dataclasses.replace(asked, largest_buffer=20 * MB))
    assert isinstance(refused, Finding) and refused.code == "plan.refused_buffer"


def test_the_loss_is_in_chunks_only_where_the_head_can_be_split_off() -> None:
    long = lengths((400, 848))
    assert planned(lengths=long).settings.loss_chunk == LOSS_CHUNK
    whole = planned(lengths=long, splits_head=False)
    assert whole.settings.loss_chunk == 0
    chosen = spec(loss_chunk=128, batch_size=4)
    asked = [question(lengths=long, spec=chosen, splits_head=splits) for splits in (True, False)]
    split, not_split = (choose_plan.options(one)[0] for one in asked)
    assert not_split.peak > 1.1 * split.peak


def test_the_prediction_of_an_estimate_is_what_will_be_seen() -> None:
    """On a CPU chunks of the loss run ahead while there is memory; the need alone decides."""
    long, chosen = lengths((400, 848)), spec(loss_chunk=128, batch_size=4)
    asked = question(lengths=long, spec=chosen)
    need = choose_plan.options(asked)[0]
    roomy = planned(lengths=long, spec=chosen)
    assert need.peak < roomy.predicted_peak == estimated(asked, need)
    tight = planned(lengths=long, spec=chosen, budget=budget(int(1.3 * need.peak)))
    assert need.peak <= tight.predicted_peak <= tight.memory_limit


def test_few_resources_give_coarser_padding_and_so_fewer_shapes() -> None:
    spread = lengths(*((n, 10) for n in range(20, 2000, 7)))
    asked = question(device="metal", lengths=spread)
    fine = choose_plan.plan(dataclasses.replace(asked, resources=10_000_000))
    coarse = choose_plan.plan(dataclasses.replace(asked, resources=100_000))
    assert isinstance(fine, Plan) and isinstance(coarse, Plan)
    assert fine.length_bucket == LENGTH_BUCKET < coarse.length_bucket
    assert coarse.compiled_shapes < fine.compiled_shapes
    assert "plan.fewer_shapes" in {reason.code for reason in coarse.reasons}


def test_packing_counts_rows_and_not_samples() -> None:
    counted = lengths((40, 400), (90, 448))
    packed = planned(spec=spec(packing=True, max_seq_length=512))
    rows = counted_rows(counted, packed.settings)
    assert 400 * 39 + 448 * 89 <= rows * 288 < 1.1 * (400 * 39 + 448 * 89)
    assert packed.total_steps == -(-rows // packed.settings.effective_batch) * 3
    assert packed.samples == 848
    assert packed.heaviest_width == 288  # three samples of 89 predictions fit


def test_packed_time_is_that_of_the_rows() -> None:
    data = all_learned(question().lengths)
    asked = question(lengths=data, spec=spec(packing=True, max_seq_length=512))
    best = choose_plan.options(asked)[0]
    plan = choose_plan.plan(
        asked, (Measure(best.settings, best.step, GB, tokens_per_second=1000.0),)
    )
    assert isinstance(plan, Plan)
    rows = counted_rows(asked.lengths, best.settings)
    assert plan.expected_seconds == pytest.approx(3 * best.step.width * rows / 1000, rel=0.1)


def test_longer_validation_samples_count_for_memory_and_are_told() -> None:
    chosen = spec(max_seq_length=2048, loss_chunk=0, lora_layers=1)
    short, long = lengths((60, 848)), lengths((60, 90), (1900, 5), (3000, 2))
    alone = planned(spec=chosen, lengths=short)
    both = planned(spec=chosen, lengths=short, valid=long)
    assert both.predicted_peak > 1.5 * alone.predicted_peak
    cut = next(r for r in both.reasons if r.code == "plan.cuts_valid")
    assert cut.args == {"count": 2, "length": 2048}
    same = planned(spec=chosen, lengths=short, valid=lengths((55, 90)))
    assert same.predicted_peak == alone.predicted_peak


def test_the_plan_names_all_that_it_was_decided_by() -> None:
    asked = question(lengths=all_learned(question().lengths))
    best = choose_plan.options(asked)[0]
    plan = choose_plan.plan(
        asked, (Measure(best.settings, best.step, GB, tokens_per_second=100.0),)
    )
    assert isinstance(plan, Plan)
    last = plan.reasons[-1]
    assert last.code == "plan.measured"
    assert last.args["peak"] == GB and last.args["predicted"] == estimated(asked, best)
    assert last.args["free"] == pytest.approx(1 - GB / asked.budget.mlx)
    assert last.args["margin"] == Degree.MEASURED.margin
    assert last.args["speed"] == pytest.approx(98.2, abs=0.05), "most micro-batches are narrower"
    assert plan.expected_seconds > 0
    assert {"plan.no_cuts", "plan.cuts"} & {reason.code for reason in plan.reasons}


def test_a_setup_that_was_measured_too_large_is_not_planned() -> None:
    best = choose_plan.options(question())[0]
    plan = planned((Measure(best.settings, best.step, 11 * GB, tokens_per_second=1e6),))
    assert plan.settings.batch_size != best.settings.batch_size or plan.settings != best.settings


def test_the_reason_begins_with_the_tier() -> None:
    assert planned(available=7 * GB).reasons[0].code == "tier.limited"
    assert planned().reasons[-1].code == "plan.estimated"


def test_plain_text_is_learned_whole() -> None:
    assert not planned(text_only=True).settings.mask_prompt
    assert planned().settings.mask_prompt


def test_a_budget_above_the_machine_is_cut_to_it() -> None:
    machine = facts(host=LINUX)
    found = budget_for(dataclasses.replace(SPEC, memory_budget=64 * GB), machine, 400 * MB)
    assert found.worker == LINUX.memory_available
    assert budget_for(SPEC, machine, 400 * MB).worker < LINUX.memory_available


def test_a_budget_leaves_room_for_the_worker_and_the_cache() -> None:
    found = budget_for(dataclasses.replace(SPEC, memory_budget=2 * GB), facts(host=LINUX), 400 * MB)
    assert found.worker == 2 * GB
    assert found.mlx == 2 * GB - 400 * MB - found.cache
    assert found.limit < found.mlx
    estimated, extrapolated, measured = (found.room(degree) for degree in Degree)
    assert estimated < extrapolated < measured < found.mlx


def test_mlxs_limit_leaves_room_for_the_largest_array_that_it_allocates_ahead() -> None:
    """Measured on gemma2: 477 MB under a limit of 446, of which its logits are 33."""
    budget = Budget(worker=600 * MB, cache=20 * MB, mlx=500 * MB)
    assert budget.limit_for(0) == budget.limit
    assert budget.limit_for(33 * MB) + 33 * MB == budget.room(Degree.EXTRAPOLATED)
    assert budget.limit_for(900 * MB) == 1, "it waits wherever it can"


def test_what_is_kept_of_shapes_grows_with_layers_and_with_the_widths_of_the_data() -> None:
    few = trace_bytes(32, 16, widths(lengths((60, 9)), TrainingSettings()))
    many = trace_bytes(
        32, 16, widths(lengths(*((n, 9) for n in range(20, 400, 20))), TrainingSettings())
    )
    assert 10 * few < many < 400 * MB
    assert trace_bytes(32, 0, 4) == trace_bytes(32, 32, 4) > trace_bytes(32, 16, 4)
    assert trace_bytes(32, 16, 4, 4) < 2 * trace_bytes(32, 16, 4), "no backward pass"


def test_a_budget_on_metal_stays_below_the_working_set() -> None:
    small = dataclasses.replace(METAL, working_set=2 * GB)
    found = budget_for(SPEC, facts(device=small))
    assert found.mlx < 2 * GB and found.wired <= 2 * GB
    assert budget_for(SPEC, facts(device=Device("cpu"))).wired == 0


def test_a_plan_has_the_steps_that_were_set_whatever_they_are_in_epochs() -> None:
    epochs, steps = planned(), planned(spec=spec(max_steps=7))
    assert steps.total_steps == 7
    share = 7 / epochs.total_steps
    assert steps.expected_seconds == pytest.approx(epochs.expected_seconds * share)


def test_ranks_on_one_machine_share_its_memory_and_are_refused_where_it_is_not_enough() -> None:
    alone = budget_for(spec(), facts(host=LINUX))
    shared = budget_for(spec(ranks=4), facts(host=LINUX))
    assert (shared.worker, shared.whole) == (alone.worker // 4, 4 * (alone.worker // 4))

    least = choose_plan.smallest(question()).peak
    room = dataclasses.replace(budget(int(0.7 * least)), ranks=2)
    refusal = choose_plan.plan(question(spec=spec(ranks=2), budget=room))
    assert isinstance(refusal, Finding) and refusal.code == "plan.refused_ranks"
    assert refusal.args["fewer"] == 1
    assert int(refusal.args["needed"] or 0) == 2 * int(refusal.args["each"] or 0) > room.whole

    enough = dataclasses.replace(budget(10 * GB), ranks=2)
    reasons = {r.code: r.args for r in planned(spec=spec(ranks=2), budget=enough).reasons}
    assert reasons["plan.ranks"]["ranks"] == 2

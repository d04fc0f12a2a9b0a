"""The properties of a correct trainer, one function each.

A property trains a few samples and asserts on the report; its docstring is what is printed. Where a
trainer has no such thing at all, `HasNone` is raised instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.conformance.material import Material, conversation, mixed, unlike
from benchmarks.conformance.trainer import Arrays, HasNone, Report, Trainer
from benchmarks.conformance.truth import all_tokens, answer_tokens, mean_loss

Property = Callable[[Trainer, Path, Path], None]
SAME = 1e-4  # relative distance of two adapters that differ by rounding alone
ROUNDING = 1e-5  # of a loss


def batches_hold_samples_of_like_length(trainer: Trainer, model: Path, folder: Path) -> None:
    """Samples of like length share a batch: at most a quarter of the work is padding."""
    material = Material(model, mixed(48, typical=30), mixed(4, 1))
    report = trainer.train(folder / "a", material, max_seq_length=512)
    assert report.padding < 0.25, f"{report.padding:.0%} padding"


def every_sample_is_seen_once_an_epoch(trainer: Trainer, model: Path, folder: Path) -> None:
    """Each epoch sees each sample exactly once, those of the last, smaller batch too."""
    report = trainer.train(folder / "a", Material(model, mixed(10), mixed(4, 1)), num_epochs=3)
    seen = sorted(itertools.chain.from_iterable(report.micro_batches))
    assert seen == sorted(list(range(10)) * 3), f"seen {len(seen)} times instead of 30"


def the_order_is_the_seeds_and_changes(trainer: Trainer, model: Path, folder: Path) -> None:
    """The order of the batches follows from the seed, and is another one in each epoch."""
    material = Material(model, mixed(24), mixed(4, 1))
    first, again, other = (
        trainer.train(folder / name, material, num_epochs=2, seed=seed).micro_batches
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again, "the same seed gave another order"
    assert first != other, "another seed gave the same order"
    assert first[: len(first) // 2] != first[len(first) // 2 :], "both epochs in the same order"


def accumulated_batches_equal_a_large_one(trainer: Trainer, model: Path, folder: Path) -> None:
    """Four micro-batches of one sample train exactly as one batch of four: tokens weigh equally."""
    samples = [conversation(n, words) for n, words in enumerate((2, 60, 5, 30))]
    material = Material(model, samples, mixed(4, 1))
    large = trainer.train(folder / "a", material, batch_size=4)
    small = trainer.train(folder / "b", material, batch_size=1, gradient_accumulation=4)
    assert large.distance(small) < SAME, f"adapters differ by {large.distance(small):.1%}"


def the_last_partial_window_is_trained(trainer: Trainer, model: Path, folder: Path) -> None:
    """What is left for the last accumulation of a run is trained, and not thrown away."""
    same = [conversation(n, 8) for n in range(3)]
    whole = trainer.train(
        folder / "a", Material(model, same, mixed(1, 1)), batch_size=1, gradient_accumulation=4
    )
    untrained = all(not w.any() for n, w in whole.weights.items() if n.endswith("lora_b"))
    assert not untrained, "three micro-batches of a window of four changed nothing"


def padding_is_never_supervised(trainer: Trainer, model: Path, folder: Path) -> None:
    """Exactly the answers' tokens count in the loss, not one of padding."""
    samples = [conversation(n, words) for n, words in enumerate((3, 9, 14, 20))]
    report = trainer.train(folder / "a", Material(model, samples, mixed(4, 1)))
    expected = sum(answer_tokens(model, sample) for sample in samples)
    assert report.learned == expected, f"{report.learned} predictions counted, not {expected}"


def all_answers_of_a_conversation_are_learned(trainer: Trainer, model: Path, folder: Path) -> None:
    """With the prompt masked, every turn of the assistant is learned, not the last alone."""
    samples = [conversation(n, 8, turns=3) for n in range(4)]
    report = trainer.train(folder / "a", Material(model, samples, mixed(4, 1)))
    assert report.learned > sum(answer_tokens(model, sample) for sample in samples) * 2, (
        f"{report.learned} predictions counted"
    )


def without_the_mask_all_is_learned(trainer: Trainer, model: Path, folder: Path) -> None:
    """With the mask off, prompts are learned too: every token but the first of each sample."""
    samples = [conversation(n, words) for n, words in enumerate((3, 9, 14, 20))]
    material = Material(model, samples, mixed(4, 1))
    report = trainer.train(folder / "a", material, mask_prompt=False)
    expected = sum(all_tokens(model, sample) - 1 for sample in samples)
    assert report.learned == expected, f"{report.learned} predictions counted, not {expected}"


def a_cut_off_answer_does_no_harm(trainer: Trainer, model: Path, folder: Path) -> None:
    """A sample whose answer is cut away gives no NaN, and the others are trained."""
    samples = [*mixed(3), conversation(99, 5, question=200)]
    report = trainer.train(
        folder / "a", Material(model, samples, mixed(4, 1)), batch_size=1, max_seq_length=128
    )
    assert all(math.isfinite(loss) for loss in report.losses), "the loss is NaN"
    assert _is_finite(report), "the adapter is NaN"


def what_is_cut_away_is_counted(trainer: Trainer, model: Path, folder: Path) -> None:
    """It says how many samples lost their end, and how many were left out for it."""
    samples = [*mixed(3), conversation(98, 200), conversation(99, 5, question=200)]
    report = trainer.train(folder / "a", Material(model, samples, mixed(4, 1)), max_seq_length=128)
    if report.left_out is None:
        raise HasNone("counts none")
    found = report.cut, report.left_out
    assert found == (1, 1), f"{found[0]} cut and {found[1]} left out, not one each"


def gradient_checkpointing_changes_nothing(trainer: Trainer, model: Path, folder: Path) -> None:
    """Gradient checkpointing gives the same gradients, with dropout too."""
    material = Material(model, mixed(8), mixed(4, 1))
    kept, computed_again = (
        trainer.train(
            folder / str(checkpointing),
            material,
            lora_dropout=0.5,
            gradient_checkpointing=checkpointing,
        )
        for checkpointing in (False, True)
    )
    distance = kept.distance(computed_again)
    assert distance < SAME, f"adapters differ by {distance:.1%}"


def dora_trains(trainer: Trainer, model: Path, folder: Path) -> None:
    """DoRA begins where the base model is, trains its magnitudes too, and brings the loss down."""
    material = Material(model, mixed(16), mixed(4, 1))
    report = trainer.train(folder / "a", material, fine_tune_type="dora", num_epochs=6)
    names = {name.rsplit(".", 1)[-1] for name in report.weights}
    assert names == {"lora_a", "lora_b", "m"}, f"it trains {', '.join(sorted(names))}"
    first, last = report.losses[:4], report.losses[-4:]
    assert sum(last) < 0.95 * sum(first), (
        f"the loss goes from {sum(first) / 4:.3f} to {sum(last) / 4:.3f}"
    )


def packed_samples_train_as_single_ones(trainer: Trainer, model: Path, folder: Path) -> None:
    """Packing changes neither losses nor gradients: packed samples do not see each other."""
    material = Material(model, mixed(12), mixed(12, 1))
    single, packed = (
        trainer.train(folder / str(packing), material, batch_size=12, packing=packing)
        for packing in (False, True)
    )
    gap = abs(single.losses[0] - packed.losses[0]) / single.losses[0]
    assert gap < ROUNDING, f"losses differ by {gap:.1e}"
    assert single.distance(packed) < SAME, f"adapters differ by {single.distance(packed):.1%}"


def the_loss_in_chunks_is_the_same(trainer: Trainer, model: Path, folder: Path) -> None:
    """The loss may be computed in chunks, to save memory, with the same losses and gradients."""
    material = Material(model, mixed(8), mixed(4, 1))
    whole, chunked = (
        trainer.train(folder / str(chunk), material, loss_chunk=chunk) for chunk in (0, 7)
    )
    gap = max(abs(a - b) / a for a, b in zip(whole.losses, chunked.losses, strict=True))
    assert gap < ROUNDING, f"losses differ by {gap:.1e}"
    assert whole.distance(chunked) < SAME, f"adapters differ by {whole.distance(chunked):.1%}"


def warm_up_and_a_linear_fall_end_where_they_say(
    trainer: Trainer, model: Path, folder: Path
) -> None:
    """The schedule counts optimizer steps: a warm-up of 2 of 20 steps, then linear to near zero."""
    report = trainer.train(
        folder / "a",
        Material(model, mixed(40), mixed(4, 1)),
        schedule="linear",
        warmup_steps=2,
        batch_size=1,
        gradient_accumulation=2,
    )
    peak = report.rates.index(max(report.rates))
    assert 1 <= peak <= 2, f"the peak comes at step {peak + 1} of {len(report.rates)}"
    assert report.rates[0] < 0.6 * report.rates[peak], "the first step has no warm-up"
    share = report.rates[-1] / 1e-3
    assert share < 0.1, f"it ends at {share:.0%} of its peak"


def a_cosine_ends_with_the_run(trainer: Trainer, model: Path, folder: Path) -> None:
    """The schedule counts optimizer steps: a cosine over the run ends near zero."""
    report = trainer.train(
        folder / "a",
        Material(model, mixed(40), mixed(4, 1)),
        schedule="cosine",
        batch_size=1,
        gradient_accumulation=4,
        eval_steps=1000,
    )
    share = report.rates[-1] / 1e-3
    assert share < 0.1, f"it ends at {share:.0%} of its peak"


def validation_is_the_whole_set(trainer: Trainer, model: Path, folder: Path) -> None:
    """Validation at its default measures the whole set, each time: "best" means something."""
    valid = mixed(43, 1)  # more than 25 batches, and no multiple of a batch
    material = Material(model, mixed(24), valid)
    report = trainer.train(folder / "a", material, learning_rate=0.0, batch_size=1, eval_steps=8)
    expected = mean_loss(model, valid)
    assert len(report.evaluations) > 1
    gap = max(abs(loss - expected) for loss in report.evaluations)
    assert gap < 10 * ROUNDING, f"up to {gap:.4f} off the loss of the whole set, {expected:.4f}"


def the_best_adapter_is_what_one_gets(trainer: Trainer, model: Path, folder: Path) -> None:
    """What one has in the end is the adapter that was best at validation, not the last one."""
    material = Material(model, mixed(24), unlike(6))
    report = trainer.train(folder / "a", material, learning_rate=1e-2, num_epochs=4, eval_steps=2)
    best = min(report.evaluations)
    if best == report.evaluations[-1]:
        raise ValueError("nothing shown: the last evaluation was the best")
    found = mean_loss(model, material.valid, report.adapter)
    assert abs(found - best) < 1e-3 * best, f"its loss is {found:.3f}, the best was {best:.3f}"


def it_stops_where_nothing_improves(trainer: Trainer, model: Path, folder: Path) -> None:
    """Early stopping: after as many evaluations without a better loss as were set."""
    report = trainer.train(
        folder / "a",
        Material(model, mixed(24), mixed(4, 1)),
        learning_rate=0.0,
        eval_steps=1,
        early_stopping=2,
        num_epochs=3,
    )
    assert len(report.losses) == 3, f"it went on for {len(report.losses)} steps instead of 3"


def a_killed_run_ends_the_same(trainer: Trainer, model: Path, folder: Path) -> None:
    """Killed in the middle of accumulating and resumed, twice, with dropout, gradient checkpointing
    and evaluation in between: all losses, optimizer and adapter are the same, to the bit.
    """
    straight, killed = _straight_and_killed(trainer, model, folder, kills=(3, 7))
    assert straight.losses == killed.losses, _unlike("losses", straight.losses, killed.losses)
    evaluations = straight.evaluations, killed.evaluations
    assert evaluations[0] == evaluations[1], _unlike("validation losses", *evaluations)
    assert _are_equal(straight.optimizer, killed.optimizer), "the optimizers' states differ"
    assert _are_equal(straight.weights, killed.weights), _apart(straight, killed)


def a_damaged_checkpoint_is_noticed(trainer: Trainer, model: Path, folder: Path) -> None:
    """A flipped bit in what was saved last: it says so, goes back further, and ends the same."""
    straight, resumed = _straight_and_killed(trainer, model, folder, kills=(5,), damage=True)
    if not any("damaged" in code for code in resumed.warnings):
        raise HasNone("has no checksums, and says nothing")
    assert straight.losses == resumed.losses, _unlike("losses", straight.losses, resumed.losses)
    assert _are_equal(straight.weights, resumed.weights), _apart(straight, resumed)


def a_loss_that_is_not_finite_is_not_applied(trainer: Trainer, model: Path, folder: Path) -> None:
    """A step whose loss is not a finite number leaves the adapter as it was."""
    report = trainer.train(
        folder / "a", Material(model, mixed(24), mixed(4, 1)), learning_rate=1e18, num_epochs=2
    )
    assert _is_finite(report), "the adapter is full of NaN"


def the_first_loss_is_the_models_own(trainer: Trainer, model: Path, folder: Path) -> None:
    """The first step's loss is the mean over the answers' tokens of what the base model says."""
    samples = [conversation(n, words) for n, words in enumerate((3, 9, 14, 20))]
    report = trainer.train(folder / "a", Material(model, samples, mixed(4, 1)))
    expected = mean_loss(model, samples)
    assert abs(report.losses[0] - expected) < ROUNDING, (
        f"{report.losses[0]:.5f}, not {expected:.5f}"
    )


PROPERTIES: tuple[Property, ...] = (
    the_first_loss_is_the_models_own,
    padding_is_never_supervised,
    all_answers_of_a_conversation_are_learned,
    without_the_mask_all_is_learned,
    a_cut_off_answer_does_no_harm,
    what_is_cut_away_is_counted,
    every_sample_is_seen_once_an_epoch,
    the_order_is_the_seeds_and_changes,
    batches_hold_samples_of_like_length,
    packed_samples_train_as_single_ones,
    accumulated_batches_equal_a_large_one,
    the_last_partial_window_is_trained,
    warm_up_and_a_linear_fall_end_where_they_say,
    a_cosine_ends_with_the_run,
    gradient_checkpointing_changes_nothing,
    the_loss_in_chunks_is_the_same,
    dora_trains,
    validation_is_the_whole_set,
    the_best_adapter_is_what_one_gets,
    it_stops_where_nothing_improves,
    a_loss_that_is_not_finite_is_not_applied,
    a_killed_run_ends_the_same,
    a_damaged_checkpoint_is_noticed,
)


def _straight_and_killed(
    trainer: Trainer, model: Path, folder: Path, **how: Any
) -> tuple[Report, Report]:
    settings: dict[str, Any] = {
        "batch_size": 1,
        "gradient_accumulation": 4,
        "num_epochs": 2,
        "lora_dropout": 0.2,
        "gradient_checkpointing": True,
        "eval_steps": 2,
        "save_steps": 2,
    }
    material = Material(model, mixed(22), mixed(4, 1))
    straight = trainer.train(folder / "a", material, **settings, kills=())
    return straight, trainer.train(folder / "b", material, **settings, **how)


def _are_equal(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


def _unlike(what: str, one: Sequence[float], other: Sequence[float]) -> str:
    if len(one) != len(other):
        return f"{len(other)} {what} instead of {len(one)}"
    return f"{what} differ by up to {max(abs(a - b) for a, b in zip(one, other, strict=True)):.1e}"


def _apart(one: Report, other: Report) -> str:
    return f"adapters differ by {one.distance(other):.1%}"


def _is_finite(report: Report) -> bool:
    return all(math.isfinite(float(abs(w).sum())) for w in report.weights.values())

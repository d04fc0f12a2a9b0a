"""The properties of a correct trainer, one function each.

A property trains a few samples and asserts on the report; its first line is what is printed. Eight
of them are defects that were found in mlx-lm 0.32's own trainer, and are named as such.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

from benchmarks.conformance.material import Material, conversation, mixed
from benchmarks.conformance.trainer import Report, Trainer
from benchmarks.conformance.truth import answer_tokens, mean_loss

Property = Callable[[Trainer, Path, Path], None]
SAME = 1e-4  # relative distance of two adapters that differ by rounding alone


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


def a_cut_off_answer_does_no_harm(trainer: Trainer, model: Path, folder: Path) -> None:
    """A sample whose answer is cut away gives no NaN, and the others are trained."""
    samples = [*mixed(3), conversation(99, 5, question=200)]
    report = trainer.train(
        folder / "a", Material(model, samples, mixed(4, 1)), batch_size=1, max_seq_length=128
    )
    assert all(math.isfinite(loss) for loss in report.losses), "the loss is NaN"
    assert _is_finite(report), "the adapter is NaN"


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


def validation_measures_the_same_each_time(trainer: Trainer, model: Path, folder: Path) -> None:
    """A model that doesn't change has one validation loss, so that "best" means something."""
    report = trainer.train(
        folder / "a", Material(model, mixed(24), mixed(24, 1)), learning_rate=0.0, eval_steps=2
    )
    assert len(report.evaluations) > 1
    spread = max(report.evaluations) - min(report.evaluations)
    assert spread == 0, f"one model, losses {spread:.4f} apart"


def a_resumed_run_ends_the_same(trainer: Trainer, model: Path, folder: Path) -> None:
    """Killed and resumed, a run ends with the same adapter, to the bit."""
    material = Material(model, mixed(24), mixed(4, 1))
    straight = trainer.train(folder / "a", material, lora_dropout=0.2)
    resumed = trainer.train(folder / "b", material, lora_dropout=0.2, kill_after=3)
    assert straight.distance(resumed) == 0, f"adapters differ by {straight.distance(resumed):.1%}"


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
    assert abs(report.losses[0] - expected) < 1e-5, f"{report.losses[0]:.5f}, not {expected:.5f}"


PROPERTIES: tuple[Property, ...] = (
    the_first_loss_is_the_models_own,
    padding_is_never_supervised,
    all_answers_of_a_conversation_are_learned,
    a_cut_off_answer_does_no_harm,
    every_sample_is_seen_once_an_epoch,
    the_order_is_the_seeds_and_changes,
    batches_hold_samples_of_like_length,
    accumulated_batches_equal_a_large_one,
    the_last_partial_window_is_trained,
    a_cosine_ends_with_the_run,
    gradient_checkpointing_changes_nothing,
    validation_measures_the_same_each_time,
    a_loss_that_is_not_finite_is_not_applied,
    a_resumed_run_ends_the_same,
)


def _is_finite(report: Report) -> bool:
    return all(math.isfinite(float(abs(w).sum())) for w in report.weights.values())

"""Losses and gradients: chunks, packing, checkpointing and dropout change nothing but cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm import load
from mlx_lm.tuner import datasets, trainer

from safetrain_shared.errors import InvalidSetting
from safetrain_shared.settings import TrainingSettings
from safetraind.worker.data.encode_chat import Encoded, Encoder
from safetraind.worker.training import step
from safetraind.worker.training.batches import Batch, Batches, batch
from safetraind.worker.training.dataset import Samples, write
from safetraind.worker.training.step import Stepper
from tests.peaks import peak
from tests.trainer.runs import SMALL

pytestmark = pytest.mark.compiled

Data = tuple[Path, Path]
Gradients = dict[str, mx.array]
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, model: Path, data: Data) -> Samples:
    _, tokenizer = load(str(model))
    encoded = Encoder(tokenizer, True).encode_file(str(data[0]))
    return write(tmp_path_factory.mktemp("tokens") / "train", encoded, 192, {})


def stepper(model: Path, **settings: Any) -> Stepper:
    """A stepper whose adapter is not the new one that adds nothing."""
    made = Stepper(load(str(model))[0], TrainingSettings(**{**SMALL, **settings}), seed=3)
    for name, weight in tree_flatten(made.model.trainable_parameters()):
        if name.endswith("lora_b"):
            drawn = mx.random.normal(weight.shape, scale=0.02, key=mx.random.key(len(name)))
            made.model.load_weights([(name, drawn)], strict=False)
    return made


def gradients(made: Stepper, *batches: Batch) -> tuple[float, Gradients]:
    """The loss and the gradient that an optimizer step on `batches` would apply."""
    loss, found = made.gradients(batches, number=11)
    return loss.item(), dict(tree_flatten(found))


def distance(one: Gradients, other: Gradients) -> float:
    gap = sum((one[n] - other[n]).square().sum().item() for n in one)
    size = sum(g.square().sum().item() for g in one.values())
    return (gap / size) ** 0.5


def test_micro_batches_add_up_to_one_large_batch(model: Path, samples: Samples) -> None:
    made = stepper(model)
    rows = [(n,) for n in range(6)]
    width = int(samples.lengths[:6].max())
    large = gradients(made, batch(samples, rows, width))
    small = gradients(made, *(batch(samples, [row], 192) for row in rows))
    assert small[0] == pytest.approx(large[0], rel=ROUNDING)
    assert distance(large[1], small[1]) < ROUNDING


def test_a_shape_is_compiled_once_also_where_micro_batches_are_added_up(
    model: Path, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLX keeps some megabytes of each trace in a model of ordinary size."""
    made, traces, loss = stepper(model, gradient_accumulation=3), [], Stepper._loss

    def counted(self: Stepper, *arrays: Any) -> mx.array:
        traces.append(arrays)
        return loss(self, *arrays)

    monkeypatch.setattr(Stepper, "_loss", counted)
    made._compile()
    gradients(made, *[batch(samples, [(0,)], 192)] * 3)
    assert len(traces) == 1


def test_the_peak_of_a_window_does_not_depend_on_the_place_of_its_heaviest_micro_batch(
    model: Path, samples: Samples
) -> None:
    """Else a plan's peak would depend on the order of the samples."""
    made = stepper(model, gradient_accumulation=2, lora_rank=256)
    heavy, light = batch(samples, [(0,), (1,)], 192), batch(samples, [(0,)], 192)
    gradient = sum(w.nbytes for _, w in tree_flatten(made.model.trainable_parameters()))

    def least(*window: Batch) -> int:
        return min(peak(lambda: made.step(window, 0, 0.0)) for _ in range(3))

    made.step((heavy, light), 0, 0.0)  # compiles, and reads low
    assert abs(least(heavy, light) - least(light, heavy)) < gradient / 4


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_loss_in_chunks_has_the_same_gradients(
    chunk: int, model: Path, samples: Samples
) -> None:
    part = batch(samples, [(n,) for n in range(4)], 192)
    whole = gradients(stepper(model), part)
    chunked = gradients(stepper(model, loss_chunk=chunk), part)
    assert chunked[0] == pytest.approx(whole[0], rel=ROUNDING)
    assert distance(whole[1], chunked[1]) < ROUNDING


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_samples_have_the_loss_of_single_ones(
    checkpointing: bool, model: Path, samples: Samples
) -> None:
    numbers = range(8)
    alone = gradients(stepper(model), *(batch(samples, [(n,)], 192) for n in numbers))
    made = stepper(model, packing=True, gradient_checkpointing=checkpointing)
    rows = [tuple(numbers[:4]), tuple(numbers[4:])]
    packed = gradients(made, batch(samples, rows, 768, packed=True))
    assert packed[0] == pytest.approx(alone[0], rel=ROUNDING)
    assert distance(alone[1], packed[1]) < ROUNDING


def test_a_sample_of_a_packed_row_does_not_see_the_one_before_it(
    model: Path, samples: Samples
) -> None:
    made = stepper(model, packing=True)
    part = batch(samples, [(0, 1)], 384, packed=True)
    assert part.segments is not None
    of_second = part.segments.reshape(-1)[part.places] == 1
    second = replace(part, weights=part.weights * of_second)
    before = made.evaluate([second])
    part.inputs[0, part.segments[0] == 0] = 5
    assert made.evaluate([second]) == before
    part.inputs[0, part.segments[0] == 1] = 5
    assert made.evaluate([second]) != before


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_with_dropout_agree_with_finite_differences(
    checkpointing: bool, model: Path, samples: Samples
) -> None:
    # (DoRA takes its norms for constants, by design, so its gradient is not the slope.)
    made = stepper(
        model,
        lora_dropout=0.4,
        gradient_checkpointing=checkpointing,
        lora_targets=("self_attn.q_proj", "mlp.down_proj"),
    )
    part = batch(samples, [(0,), (1,)], 192)
    _, found = gradients(made, part)
    for name, gradient in found.items():
        weight = dict(tree_flatten(made.model.trainable_parameters()))[name]
        along = gradient / mx.linalg.norm(gradient.reshape(-1))
        nudge = 2e-2 if name.endswith("lora_a") else 2e-3
        losses = []
        for sign in (1, -1):
            made.model.load_weights([(name, weight + sign * nudge * along)], strict=False)
            losses.append(gradients(made, part)[0])
        made.model.load_weights([(name, weight)], strict=False)
        slope = (losses[0] - losses[1]) / (2 * nudge)
        expected = (gradient * along).sum().item()
        assert slope == pytest.approx(expected, rel=0.03, abs=2e-4), name


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_recomputed_layers_give_the_same_gradients_to_the_bit(
    kind: str, model: Path, samples: Samples
) -> None:
    part = batch(samples, [(n,) for n in range(4)], 192)
    settings = {"lora_dropout": 0.3, "fine_tune_type": kind}
    kept = gradients(stepper(model, **settings), part)
    again = gradients(stepper(model, **settings, gradient_checkpointing=True), part)
    assert kept[0] == again[0]
    assert distance(kept[1], again[1]) == 0


def test_a_model_with_dropout_of_its_own_refuses_checkpointing(model: Path) -> None:
    network = load(str(model))[0]
    network.layers[0].noise = nn.Dropout(0.1)
    settings = TrainingSettings(**{**SMALL, "gradient_checkpointing": True})
    with pytest.raises(InvalidSetting) as refused:
        Stepper(network, settings, seed=1)
    assert refused.value.code == "train.own_dropout"


def test_the_worker_tells_what_would_save_it_memory(
    model: Path, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fallbacks(network: nn.Module, **settings: Any) -> dict[str, bool]:
        chosen = TrainingSettings(**{**SMALL, **settings})
        return Stepper(network, chosen, seed=1).fallbacks(Batches(samples, chosen, 32, seed=1))

    def fresh() -> nn.Module:
        return load(str(model))[0]

    class Mixing(type(fresh())):  # type: ignore[misc]  # its tokens meet after the body
        def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
            return mx.cumsum(super().__call__(*args, **kwargs), axis=1)

    assert fallbacks(fresh()) == {"gradient_checkpointing": True, "loss_chunk": True}
    dropping, mixing = fresh(), fresh()
    dropping.layers[0].noise = nn.Dropout(0.1)
    assert not fallbacks(dropping)["gradient_checkpointing"]
    mixing.__class__ = Mixing
    assert not fallbacks(mixing)["loss_chunk"]
    monkeypatch.setattr(step, "LOSS_CHUNK", 100_000)  # no row has two chunks then
    assert not fallbacks(fresh())["loss_chunk"]


def test_the_first_loss_is_mlx_lms_where_it_does_not_pad(model: Path, tmp_path: Path) -> None:
    """Lengths of 1 mod 32, which mlx-lm neither pads nor miscounts."""
    lengths, answers = (33, 65, 97, 129), (10, 20, 64, 3)
    draw = np.random.default_rng(0)
    tokens = [draw.integers(3, 320, size=n).tolist() for n in lengths]
    learned = [[i >= n - a for i in range(n)] for n, a in zip(lengths, answers, strict=True)]
    made = [Encoded(i, t, m) for i, (t, m) in enumerate(zip(tokens, learned, strict=True), 1)]
    ours_samples = write(tmp_path / "t", made, 512, {})
    for number, (length, answer) in enumerate(zip(lengths, answers, strict=True)):
        theirs_batch = mx.array([tokens[number]])
        span = mx.array([[length - answer, length]])
        theirs, count = trainer.default_loss(load(str(model))[0], theirs_batch, span)
        part = batch(ours_samples, [(number,)], length - 1)
        fresh = Stepper(load(str(model))[0], TrainingSettings(**SMALL), seed=1)
        ours, _ = gradients(fresh, part)
        assert part.learned == count.item() == answer
        assert ours == pytest.approx(theirs.item(), rel=1e-6)


def test_whole_samples_give_mlx_lms_tokens_and_masks(model: Path, data: Data) -> None:
    """On single-turn conversations our tokens and prompt mask are exactly mlx-lm's."""
    _, tokenizer = load(str(model))
    found = list(Encoder(tokenizer, True).encode_file(str(data[0])))
    lines = [json.loads(line) for line in data[0].read_text().splitlines()]
    theirs = datasets.create_dataset(lines, tokenizer, SimpleNamespace(mask_prompt=True))
    single = [i for i, line in enumerate(lines) if len(line["messages"]) == 2]
    assert single
    for number in single:
        tokens, offset = theirs.process(lines[number])
        assert found[number].tokens == list(tokens)
        assert found[number].learned == [i >= offset for i in range(len(tokens))]


def test_a_window_split_otherwise_trains_the_same(model: Path, samples: Samples) -> None:
    """As after a fallback: half the micro-batch, twice the accumulation."""
    losses = []
    for size, accumulation in ((4, 1), (2, 2), (1, 4)):
        settings = {"batch_size": size, "gradient_accumulation": accumulation}
        made = stepper(model, **settings)
        batches = Batches(samples, TrainingSettings(**{**SMALL, **settings}), 32, seed=5)
        losses.append([made.step(batches.window(0, n), n, 1e-3).loss for n in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


def test_dropping_the_traces_of_many_shapes_changes_nothing(
    model: Path, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Batches(samples, TrainingSettings(**SMALL), 16, seed=5)
    windows = [batches.window(0, n) for n in range(batches.steps_per_epoch)]
    assert len({part.inputs.shape for window in windows for part in window}) > 4
    losses = []
    for most in (2, 96):
        monkeypatch.setattr(step, "MOST_SHAPES", most)
        made = stepper(model, lora_dropout=0.1)
        losses.append([made.step(w, n, 1e-3).loss for n, w in enumerate(windows)])
        assert len(made._shapes) <= most
    assert losses[0] == losses[1]

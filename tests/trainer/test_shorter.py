"""A run that goes on with shorter sequences: no sample is skipped, and none comes twice."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from safetrain_shared.events import StepDone
from safetrain_shared.settings import TrainingSettings
from safetraind.storage.run_folder import Launch
from safetraind.worker.data.encode_chat import Encoded
from safetraind.worker.training import prepare, task, train
from safetraind.worker.training.batches import Batch, Batches, evaluation_batches
from safetraind.worker.training.dataset import Samples, write
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.step import Stepped, Stepper
from tests.trainer.runs import Run, make_run

pytestmark = pytest.mark.compiled

Data = tuple[Path, Path]
LONG, SHORT = 256, 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of which many have their first token to learn beyond `SHORT`."""
    draw = np.random.default_rng(1)
    made = [
        Encoded(line, [line + 1] * length, [place >= length // 2 for place in range(length)])
        for line, length in enumerate(draw.integers(8, LONG + 1, 103).tolist(), 1)
    ]
    write(path := tmp_path_factory.mktemp("samples") / "t", made, LONG, {})
    return path


def windows(batches: Batches, epoch: int) -> list[set[int]]:
    places = range(batches.steps_per_epoch)
    return [{n for part in batches.window(epoch, p) for n in part.samples} for p in places]


@pytest.mark.parametrize("packing", [False, True])
def test_the_windows_stay_and_lose_what_has_nothing_to_learn_left(
    packing: bool, folder: Path
) -> None:
    settings = {"batch_size": 2, "gradient_accumulation": 2, "packing": packing}
    whole, short = Samples(folder, LONG), Samples(folder, SHORT)
    before = Batches(whole, TrainingSettings(**settings, max_seq_length=LONG), 16, seed=3)
    after = Batches(short, TrainingSettings(**settings, max_seq_length=SHORT), 16, 3, LONG)
    assert after.steps_per_epoch == before.steps_per_epoch
    usable = set(np.flatnonzero(short.usable).tolist())
    assert 0 < len(usable) < len(whole)
    assert windows(after, 1) == [window & usable for window in windows(before, 1)]
    for place in range(after.steps_per_epoch):
        for part in after.window(1, place):
            assert part.inputs.shape[0] <= 2
            assert part.inputs.shape[1] <= SHORT
    assert max(part.inputs.shape[1] for part in before.window(1, 0)) <= LONG


@pytest.mark.parametrize("packing", [False, True])
def test_the_windows_stay_in_a_plan_with_longer_sequences_and_larger_steps(
    packing: bool, folder: Path
) -> None:
    first = TrainingSettings(max_seq_length=SHORT, batch_size=3, packing=packing)
    later = TrainingSettings(max_seq_length=LONG, batch_size=8, packing=packing)
    short = Samples(folder, SHORT)
    before = Batches(short, first, 16, seed=3)
    after = Batches(short, later, 16, 3, first_length=SHORT, first_window=3)
    assert windows(after, 1) == windows(before, 1)
    assert max(part.inputs.shape[1] for part in after.window(1, 0)) <= SHORT


def test_an_evaluation_passes_over_what_has_nothing_to_learn_left(folder: Path) -> None:
    short = Samples(folder, SHORT)
    for eval_samples in (0, 20):
        settings = TrainingSettings(max_seq_length=SHORT, eval_samples=eval_samples)
        parts = list(evaluation_batches(short, settings, 16, seed=3))
        chosen = [n for part in parts for n in part.samples]
        assert len(chosen) == len(set(chosen)) == (eval_samples or short.usable.sum())
        assert all(part.learned for part in parts)


def data_with_long_questions(folder: Path, data: Data) -> Data:
    """Twelve conversations whose answers begin late are added: more than a window of them."""
    lines = data[0].read_text().splitlines()
    for number in range(12):
        turns = [("user", f"{number} {'Faro ' * 150}"), ("assistant", "Sim.")]
        messages = [{"role": role, "content": text} for role, text in turns]
        lines.append(json.dumps({"messages": messages}))
    (folder / "train.jsonl").write_text("\n".join(lines))
    return folder / "train.jsonl", data[1]


class Killed(Exception):
    """Stands for a kill."""


@pytest.fixture
def signals() -> Iterator[None]:
    """The worker takes SIGTERM over; here it has no process of its own."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def trained(run: Run, monkeypatch: pytest.MonkeyPatch, until: int = 0) -> dict[int, list[int]]:
    """The samples of each step that was done, by the worker's own loop; it dies before `until`."""
    seen: dict[int, list[int]] = {}

    class Watching(Stepper):
        def step(self, window: Sequence[Batch], number: int, learning_rate: float) -> Stepped:
            if number == until > 0:
                raise Killed
            seen[number] = [n for part in window for n in part.samples]
            return super().step(window, number, learning_rate)

    monkeypatch.setattr(prepare, "Stepper", Watching)
    try:
        train.train(task.read(run.folder), EventSink(run.folder, Launch()))
    except Killed:
        assert until
    return seen


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("packing", [False, True])
def test_a_run_that_goes_on_shorter_sees_every_sample_once(
    packing: bool, tmp_path: Path, model: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = data_with_long_questions(tmp_path, data)
    run = make_run(
        tmp_path / "run", model, files, num_epochs=2, save_steps=1, packing=packing,
        batch_size=1, gradient_accumulation=2 if packing else 4, learning_rate=1e-3,
    )  # fmt: skip
    before = trained(run, monkeypatch, until=3)
    assert sorted(before) == [0, 1, 2]
    run.replan(max_seq_length=96, gradient_accumulation=5)
    after = trained(run, monkeypatch)
    assert min(after) == 3

    samples = Samples(run.folder.root / "tokens" / "train", 96)
    usable = set(np.flatnonzero(samples.usable).tolist())
    steps = (max(after) + 1) // 2
    first = Counter(n for step, of in (before | after).items() if step < steps for n in of)
    second = Counter(n for step, of in after.items() if step >= steps for n in of)
    assert usable | {n for of in before.values() for n in of} == set(first)
    assert usable == set(second)
    assert {*first.values(), *second.values()} == {1}
    assert run.json("training_summary.json")["samples_left_out"] == len(samples) - len(usable) > 0
    if not packing:
        assert [] in after.values()
        assert len(run.of(StepDone)) < max(after) + 1  # a step without a loss logs none
    assert "train.left_out" in run.codes()

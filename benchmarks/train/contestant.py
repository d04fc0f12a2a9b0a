"""One trainer in a process of its own, which does a step of its own real loop when it is told to.

`python -m benchmarks.train.contestant NAME MODEL FOLDER LAYERS ROUNDS`. For each line on standard
input it takes a step, and answers with a JSON line: the real tokens of the step, and the seconds of
the whole body of its loop, from one wish for a batch to the next: making the batch, the step, and
what the loop does besides. The first line that it writes says that it is ready.

A run sees a few of the batches that the trainer makes of an epoch: the smallest first, to warm up,
and then some from all over their sizes, so that they stand for the whole epoch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import mlx.core as mx
import numpy as np
from mlx_lm.tuner import datasets, trainer

from benchmarks.conformance.material import Material
from benchmarks.conformance.ours import run_folder
from benchmarks.train import lengths, setup
from safetrain_shared.codec import to_plain
from safetrain_shared.settings import TrainingSettings
from safetraind.storage.run_folder import Launch
from safetraind.worker import loading
from safetraind.worker.training import batches, prepare, task, train
from safetraind.worker.training.batches import Batch, batch
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.event_sink import EventSink

THEIRS, EQUAL, BY_LENGTH, PACKED = NAMES = ("mlx_lm", "equal batches", "by length", "packed")
# Turns of a round, and in how many of them each has one. (A packed batch holds several others'.)
TURNS = 2
EVERY = {THEIRS: 1, EQUAL: 2, BY_LENGTH: 1, PACKED: 2}
LINES = "lines.json"

Tokens = Sequence[tuple[list[int], int]]


class Turns:
    """Waits for its turn, and tells what the last one took."""

    def __init__(self) -> None:
        self.tokens = 0
        self._began = 0.0
        self._out = os.fdopen(os.dup(1), "w")  # mlx-lm's loop prints on standard output

    def end(self) -> None:
        """Ends a step and waits for the next to begin; ends the process when there is none."""
        seconds = time.perf_counter() - self._began if self._began else 0.0
        print(json.dumps([self.tokens, seconds]), file=self._out, flush=True)
        if not sys.stdin.readline():
            os._exit(0)
        self._began = time.perf_counter()


def main(name: str, model: Path, folder: Path, layers: int, rounds: int) -> None:
    """Trains until nobody asks for a step any more."""
    lines = json.loads((folder / LINES).read_text())
    chosen = setup.settings(lora_layers=layers)
    if name == THEIRS:
        _train_theirs(model, lines, chosen, rounds)
    else:
        _train_ours(name, model, lines, chosen, folder / name, rounds)


def _train_theirs(model: Path, lines: list[Any], chosen: TrainingSettings, rounds: int) -> None:
    turns, loaded = Turns(), loading.load(str(model), dequantize=True)
    config = SimpleNamespace(mask_prompt=False)
    kept = datasets.CacheDataset(datasets.create_dataset(lines, loaded.tokenizer, config))
    tokens = [kept[number] for number in range(len(kept))]
    made = _their_batches(tokens, chosen.batch_size)
    picked = _spread([width for _, width in made], rounds, TURNS)

    def in_turn(**_: Any) -> Iterator[tuple[mx.array, mx.array]]:
        for place in picked:
            samples = _Tokenized([tokens[number] for number in made[place][0]])
            turns.end()
            (one,) = trainer.iterate_batches(samples, chosen.batch_size, chosen.max_seq_length)
            turns.tokens = int((one[1][:, 1] - 1).sum().item())
            yield one
        turns.end()

    setup.theirs(loaded.model, chosen, kept, in_turn, setup.NEVER)


def _train_ours(
    name: str,
    model: Path,
    lines: list[Any],
    chosen: TrainingSettings,
    folder: Path,
    rounds: int,
) -> None:
    turns = Turns()

    class InTurn(EventSink):
        def intent(self) -> str:
            turns.end()
            return super().intent()

    class Picked(Equal if name == EQUAL else batches.Batches):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            windows = [super(Picked, self).window(0, n) for n in range(self.steps_per_epoch)]
            sizes = [sum(part.inputs.size for part in window) for window in windows]
            first, *others = _spread(sizes, rounds, TURNS)
            self._places = [first, *others[:: EVERY[name]]]

        def window(self, epoch: int, place: int) -> list[Batch]:
            found: list[Batch] = super().window(epoch, self._places[place])
            turns.tokens = sum(part.tokens for part in found)
            return found

    longest = max(len(line["text"].split()) for line in lines) + 1  # a token a word, and the end
    chosen = chosen.with_overrides({"max_seq_length": longest, "packing": name == PACKED})
    run = run_folder(folder, Material(model, lines, lines[:1]), to_plain(chosen))
    with mock.patch.object(prepare, "Batches", Picked):
        train.train(task.read(run), InTurn(run, Launch()))


class Equal(batches.Batches):
    """The batches that mlx-lm makes of the samples, at its own widths."""

    def __init__(self, samples: Samples, settings: TrainingSettings, *more: Any, **others: Any):
        """See `batches.Batches`."""
        super().__init__(samples, settings, *more, **others)
        tokens = [(samples.tokens(n)[0].tolist(), 0) for n in range(len(samples))]
        self._all, self._made = samples, _their_batches(tokens, settings.batch_size)
        self.steps_per_epoch = len(self._made)

    def window(self, epoch: int, place: int) -> list[Batch]:
        """One of their batches."""
        numbers, width = self._made[place]
        return [batch(self._all, [(number,) for number in numbers], width)]


def _their_batches(tokens: Tokens, size: int) -> list[tuple[list[int], int]]:
    """The batches that mlx-lm makes of an epoch: samples by number, and how many inputs wide."""
    numbers = {tuple(ids): n for n, (ids, _) in enumerate(tokens)}
    np.random.seed(setup.SEED)
    found = []
    for rows, spans in trainer.iterate_batches(_Tokenized(tokens), size, lengths.LONGEST):
        table, ends = np.array(rows), np.array(spans)[:, 1]
        samples = [numbers[tuple(r[:e].tolist())] for r, e in zip(table, ends, strict=True)]
        found.append((samples, table.shape[1] - 1))
    return found


def _spread(sizes: Sequence[int], rounds: int, turns: int) -> list[int]:
    """The place of the smallest batch, and for each round those of batches of all sizes."""
    order = np.argsort(sizes, kind="stable").tolist()
    count = rounds * turns
    picked = [order[(2 * n + 1) * len(order) // (2 * count)] for n in range(count)]
    by_round = [picked[n::rounds] for n in range(rounds)]
    return [order[0], *(p for n, own in enumerate(by_round) for p in own[:: 1 - 2 * (n % 2)])]


class _Tokenized(trainer.CacheDataset):
    """Tokenized samples behind the class that mlx-lm's batches look for."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def itemlen(self, idx: int) -> int:
        """What mlx-lm 0.32 takes for a sample's length: the number of its keys."""
        return 2

    def __getitem__(self, idx: int) -> tuple[list[int], int]:
        return self._tokens[idx]

    def __len__(self) -> int:
        return len(self._tokens)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))

"""One trainer in a process of its own, which does a step of its own real loop when it is told to.

`python -m benchmarks.train.contestant NAME MODEL FOLDER LAYERS`. For each line on standard input it
takes a step, and answers with a JSON line: the real tokens of the step, and the seconds of the
whole body of its loop, from one wish for a batch to the next: making the batch, the step, and what
the loop does besides. The first line that it writes says that it is ready.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
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
from safetrain_shared.jobs import to_dict
from safetrain_shared.settings import TrainingSettings
from safetraind.worker import loading
from safetraind.worker.training import batches, task, train
from safetraind.worker.training.batches import Batch, batch
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.link import Link

NAMES = ("mlx_lm", "equal batches", "by length", "packed")
LINES = "lines.json"
EQUAL_EVERY = 2  # after the first, with equal batches ours does every second of theirs


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


def main(name: str, model: Path, folder: Path, layers: int) -> None:
    """Trains until nobody asks for a step any more."""
    lines = json.loads((folder / LINES).read_text())
    chosen = setup.settings(lora_layers=layers, num_epochs=100)
    if name == "mlx_lm":
        _train_theirs(model, lines, chosen)
    else:
        _train_ours(name, model, lines, chosen, folder / name)


def _train_theirs(model: Path, lines: list[Any], chosen: TrainingSettings) -> None:
    turns, loaded = Turns(), loading.load(str(model), dequantize=True)
    dataset = _dataset(lines, loaded.tokenizer)

    def in_turn(**arguments: Any) -> Iterator[tuple[mx.array, mx.array]]:
        np.random.seed(setup.SEED)
        theirs = trainer.iterate_batches(**arguments)
        while True:
            turns.end()
            rows, spans = next(theirs)
            turns.tokens = int((spans[:, 1] - 1).sum().item())
            yield rows, spans

    setup.theirs(loaded.model, chosen, dataset, in_turn, setup.NEVER)


def _train_ours(
    name: str, model: Path, lines: list[Any], chosen: TrainingSettings, folder: Path
) -> None:
    turns = Turns()

    class InTurn(Link):
        def wish(self) -> str:
            turns.end()
            return super().wish()

    class Told(Equal if name == "equal batches" else batches.Batches):  # type: ignore[misc]
        def window(self, epoch: int, place: int) -> list[Batch]:
            found: list[Batch] = super().window(epoch, place)
            turns.tokens = sum(part.tokens for part in found)
            return found

    longest = max(len(line["text"].split()) for line in lines) + 1  # a token a word, and the end
    chosen = chosen.with_overrides({"max_seq_length": longest, "packing": name == "packed"})
    run = run_folder(folder, Material(model, lines, lines[:1]), to_dict(chosen))
    with mock.patch.object(train, "Batches", Told):
        train.train(task.read(run), InTurn(run, {}))


class Equal(batches.Batches):
    """The batches that mlx-lm makes of the samples, some of them, at its own widths."""

    def __init__(self, samples: Samples, *arguments: Any, **more: Any) -> None:
        """See `batches.Batches`."""
        super().__init__(samples, *arguments, **more)
        self._of, self._made = samples, []
        tokens = [(samples.tokens(n)[0].tolist(), 0) for n in range(len(samples))]
        numbers = {tuple(ids): n for n, (ids, _) in enumerate(tokens)}
        np.random.seed(setup.SEED)
        for rows, spans in trainer.iterate_batches(_Tokenized(tokens), 4, lengths.LONGEST):
            table, ends = np.array(rows), np.array(spans)[:, 1]
            found = [(numbers[tuple(r[:e].tolist())],) for r, e in zip(table, ends, strict=True)]
            self._made.append((found, table.shape[1] - 1))
        self._made[1:] = self._made[1::EQUAL_EVERY]

    def window(self, epoch: int, place: int) -> list[Batch]:
        """The next of their batches."""
        rows, width = self._made[place]
        return [batch(self._of, rows, width)]


class _Tokenized(trainer.CacheDataset):
    """Tokenized samples behind the class that mlx-lm's batches look for."""

    def __init__(self, tokens: list[tuple[list[int], int]]) -> None:
        self._tokens = tokens

    def itemlen(self, idx: int) -> int:
        """What mlx-lm 0.32 takes for a sample's length: the number of its keys."""
        return 2

    def __getitem__(self, idx: int) -> tuple[list[int], int]:
        return self._tokens[idx]

    def __len__(self) -> int:
        return len(self._tokens)


def _dataset(lines: list[Any], tokenizer: Any) -> Any:
    """The data as `mlx_lm.lora` reads it."""
    config = SimpleNamespace(mask_prompt=False)
    dataset = datasets.CacheDataset(datasets.create_dataset(lines, tokenizer, config))
    for number in range(len(dataset)):
        dataset[number]  # tokenized now, as ours are, and kept
    return dataset


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))

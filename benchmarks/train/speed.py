"""Real tokens per second, ours and mlx-lm's, a step of one and a step of the other in turn."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.tuner import trainer

from benchmarks.train import lengths, setup
from safetraind.worker.training.batches import Batch, Batches, batch
from safetraind.worker.training.dataset import Samples

VOCABULARY = 49152
BUCKET = 16
PACKED_TOKENS = 1280  # a step, about as many as four padded samples have
DISTRIBUTIONS = ("uniform", "log-normal", "long tail")


@dataclass
class Clock:
    """Tokens and seconds of one trainer, by round."""

    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def begin_round(self) -> None:
        """What is added from now on counts for another round."""
        self.tokens.append(0)
        self.seconds.append(0.0)

    def add(self, tokens: int, seconds: float) -> None:
        """One step."""
        self.tokens[-1] += tokens
        self.seconds[-1] += seconds

    def rates(self) -> list[float]:
        """Tokens per second of each round but the first, which compiles."""
        return [t / s for t, s in zip(self.tokens[1:], self.seconds[1:], strict=True)]


def report(model: Path, count: int, rounds: int, layers: int) -> None:
    """Prints a table: `count` samples of each distribution, `rounds` times over."""
    print(
        f"\nReal tokens per second, batch 4, {layers} LoRA layers, {count} samples, {rounds} rounds"
    )
    print(f"  {'':12} {'mlx_lm':>8}  {'equal batches':>20} {'by length':>20} {'packed':>20}")
    for distribution in DISTRIBUTIONS:
        with tempfile.TemporaryDirectory() as folder:
            sizes = lengths.lengths(distribution, count)
            samples = lengths.samples(Path(folder) / "t", sizes, VOCABULARY)
            clocks = _race(model, samples, rounds, layers)
        theirs = clocks.pop("mlx_lm").rates()
        line = f"  {distribution:12} {statistics.median(theirs):8.0f}"
        for clock in clocks.values():
            ratios = [ours / base for ours, base in zip(clock.rates(), theirs, strict=True)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            line += f"  {statistics.median(ratios):5.2f}× ({spread})"
        print(line, flush=True)


def _race(model: Path, samples: Samples, rounds: int, layers: int) -> dict[str, Clock]:
    """mlx-lm's loop runs, and whenever it asks for a batch, our steppers do a step each."""
    plain = setup.settings(lora_layers=layers)
    width = max(PACKED_TOKENS // 4, int(max(samples.lengths)) - 1)
    packed = setup.settings(
        lora_layers=layers,
        packing=True,
        batch_size=PACKED_TOKENS // width,
        max_seq_length=width + 1,
    )
    padding = setup.ours(model, plain)
    packing = setup.ours(model, packed)
    clocks = {name: Clock() for name in ("mlx_lm", "equal", "by length", "packed")}
    chosen = (
        (padding, Batches(samples, plain, BUCKET, setup.SEED), clocks["by length"]),
        (packing, Batches(samples, packed, BUCKET, setup.SEED), clocks["packed"]),
    )
    steps = len(samples) // plain.batch_size

    def race(*_: Any, **__: Any) -> Iterator[tuple[mx.array, mx.array]]:
        for turn in range(rounds + 1):
            for clock in clocks.values():
                clock.begin_round()
            own = [batches.steps_per_epoch for _, batches, _ in chosen]
            done = [0, 0]
            for place, (part, theirs) in enumerate(_mlx_batches(samples, plain.batch_size)):
                _timed(padding, part, clocks["equal"])
                for which, (stepper, batches, clock) in enumerate(chosen):
                    while done[which] * steps < (place + 1) * own[which]:
                        window = batches.window(turn, done[which])
                        _timed(stepper, window[0], clock)
                        done[which] += 1
                start = time.perf_counter()
                yield theirs
                clocks["mlx_lm"].add(part.tokens, time.perf_counter() - start)

    setup.theirs(model, plain, race, (rounds + 1) * steps)
    return clocks


def _timed(stepper: Any, part: Batch, clock: Clock) -> None:
    start = time.perf_counter()
    stepper.step([part], 0, 1e-5)
    clock.add(part.tokens, time.perf_counter() - start)


def _mlx_batches(samples: Samples, size: int) -> Iterator[tuple[Batch, tuple[mx.array, mx.array]]]:
    """The batches that mlx-lm makes of the samples, and the same for us."""
    tokens = [(samples.tokens(n)[0].tolist(), 0) for n in range(len(samples))]
    dataset = _Dataset(tokens)
    numbers = {tuple(ids): n for n, (ids, _) in enumerate(tokens)}
    for rows, spans in trainer.iterate_batches(dataset, size, lengths.LONGEST):
        table, ends = np.array(rows), np.array(spans)[:, 1]
        found = [(numbers[tuple(r[:e].tolist())],) for r, e in zip(table, ends, strict=True)]
        yield batch(samples, found, table.shape[1] - 1), (rows, spans)


class _Dataset(trainer.CacheDataset):
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

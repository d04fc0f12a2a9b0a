"""The samples of each optimizer step, and the arrays it computes on.

An epoch is cut into *windows*, the samples of one optimizer step, and a window into
*micro-batches*, which fit into memory. The windows don't depend on how they are cut: a run that
continues with smaller micro-batches sees the same samples in the same steps. So does one that
continues with shorter sequences, except for the samples that have nothing to learn left.

Without packing a row is one sample. The samples of a window are of about equal length, and the
windows are shuffled anew in each epoch. With packing a row holds several samples, which don't see
each other; the rows are filled once, and shuffled in each epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safetrain_shared.settings import TrainingSettings
from safetraind.batching import packed_rows, packed_width, padded, quarters
from safetraind.worker.training import rng
from safetraind.worker.training.dataset import Samples

# The places that random orders are drawn for.
_TIES, _WINDOWS, _CHOSEN = range(3)

Row = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch of B rows of T tokens; M predictions count in its loss, of vocabulary ids.

    `inputs` (B, T); `places` (M,): where in the flattened B × T a prediction that counts is made;
    `targets` (M,): what follows there; `weights` (M,): 1, or 0 for filling. With packing,
    `segments` (B, T) numbers the samples of each row and `positions` (B, T) counts within them.
    `tokens` and `learned` are the numbers of real tokens and of predictions that count.
    """

    inputs: NDArray[np.int32]
    places: NDArray[np.int32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    segments: NDArray[np.int32] | None
    positions: NDArray[np.int32] | None
    samples: tuple[int, ...]
    tokens: int
    learned: int


class Batches:
    """The windows of every epoch, and the batches of the validation set."""

    def __init__(
        self,
        samples: Samples,
        settings: TrainingSettings,
        bucket: int,
        seed: int,
        first_length: int = 0,
        first_window: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """`bucket`: rows are padded to a multiple of it. `first_length` and `first_window`: see
        `RunPosition`; 0: those of `settings`. `share`: of each window this process trains on one
        part of so many, as in (rank, ranks).
        """
        first_length = first_length or settings.max_seq_length
        length = min(first_length, settings.max_seq_length)
        self._samples = samples
        self._rows_at_once = settings.batch_size
        self._window = first_window or settings.effective_batch
        self._seed = seed
        self._rank, self._ranks = share
        self._bucket = bucket
        self._shorter = length < first_length
        self._usable = samples.usable
        self._inputs = np.maximum(samples.lengths - 1, 0)  # the last token predicts nothing

        first = np.maximum(np.minimum(samples.written_lengths, first_length) - 1, 0)
        first_width = packed_width(_counts(first), first_length - 1, bucket)
        self._packed_width = min(first_width, padded(length - 1, bucket))
        self._packed = _filled_rows(first, first_width) if settings.packing else None
        if self._packed is None:
            self._widths = _all_padded(first, bucket)
        else:
            filled = [int(first[list(row)].sum()) for row in self._packed]
            self._widths = _all_padded(np.maximum(filled, first_width), bucket)
        self.steps_per_epoch = -(-len(self._widths) // self._window)
        self._epoch = lru_cache(maxsize=1)(self._orders)

    @property
    def most_predictions(self) -> int:
        """The largest number of predictions of a row; where samples are packed, all of them."""
        if self._packed is not None:
            return max(self._packed_width, padded(int(self._inputs.max()), self._bucket))
        widths = _all_padded(self._inputs, self._bucket)
        learned = np.minimum(self._samples.most_learned, widths)
        rooms = [
            quarters(*pair) for pair in set(zip(learned.tolist(), widths.tolist(), strict=True))
        ]
        return max(rooms, default=0)

    def window(self, epoch: int, place: int) -> list[Batch]:
        """Return the micro-batches of optimizer step `place` of an epoch, both counted from 0, or
        this rank's share of them: every so-manieth row, so that all have rows of about one length.

        The list is empty where sequences became shorter and left the whole window nothing to learn,
        or where there are fewer rows than ranks.
        """
        return self._cut(self._window_rows(epoch, place)[self._rank :: self._ranks])

    def whole_window(self, epoch: int, place: int) -> list[Batch]:
        """Return the micro-batches of all ranks of an optimizer step, as `window` does."""
        return self._cut(self._window_rows(epoch, place))

    def _window_rows(self, epoch: int, place: int) -> list[Row]:
        rows, windows = self._epoch(epoch)
        start = int(windows[place]) * self._window
        return self._rows(rows[start : start + self._window])

    def _cut(self, rows: Sequence[Row]) -> list[Batch]:
        """Return rows as micro-batches."""
        cuts = range(0, len(rows), self._rows_at_once)
        return [self._batch(rows[cut : cut + self._rows_at_once]) for cut in cuts]

    def _orders(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows sorted from wide to narrow, in random order within a width, and the order
        of the windows.
        """
        rows = rng.order(len(self._widths), self._seed, _TIES, epoch)
        rows = rows[np.argsort(-self._widths[rows], kind="stable")]
        return rows, rng.order(self.steps_per_epoch, self._seed, _WINDOWS, epoch)

    def _rows(self, numbers: NDArray[np.int64]) -> list[Row]:
        """Return the rows of a window, of what there is to learn in them now."""
        if self._packed is None:
            return [(int(n),) for n in numbers if self._usable[n]]
        rows = [self._packed[n] for n in numbers]
        if not self._shorter:
            return rows
        left = np.array([n for row in rows for n in row if self._usable[n]], np.int64)
        packed = _filled_rows(self._inputs[left], self._packed_width)
        return [tuple(int(left[n]) for n in row) for row in packed]

    def _batch(self, rows: Sequence[Row]) -> Batch:
        longest = max(int(self._inputs[list(row)].sum()) for row in rows)
        if self._packed is None:
            return batch(self._samples, rows, padded(longest, self._bucket))
        width = padded(max(longest, self._packed_width), self._bucket)
        return batch(self._samples, rows, width, packed=True)


def evaluation_batches(
    samples: Samples, settings: TrainingSettings, bucket: int, seed: int
) -> Iterator[Batch]:
    """Yield the whole validation set, or the fixed `eval_samples` of it, in batches by length."""
    lengths, numbers = samples.lengths, np.flatnonzero(samples.usable)
    if 0 < settings.eval_samples < len(numbers):
        order = rng.order(len(samples), seed, _CHOSEN)
        numbers = np.sort(order[samples.usable[order]][: settings.eval_samples])
    numbers = numbers[np.argsort(-lengths[numbers], kind="stable")]
    for cut in range(0, len(numbers), settings.batch_size):
        chosen = numbers[cut : cut + settings.batch_size]
        width = padded(int(lengths[chosen[0]]) - 1, bucket)
        yield batch(samples, [(int(n),) for n in chosen], width)


def batch(samples: Samples, rows: Sequence[Row], width: int, *, packed: bool = False) -> Batch:
    """Return the arrays of `rows`, each a number of samples laid end to end in `width` tokens."""
    inputs = np.zeros((len(rows), width), np.int32)
    targets = np.zeros((len(rows), width), np.int32)
    learned = np.zeros((len(rows), width), np.bool_)
    segments = np.full((len(rows), width), -1, np.int32)
    positions = np.zeros((len(rows), width), np.int32)
    tokens = 0
    for y, row in enumerate(rows):
        x = 0
        for segment, number in enumerate(row):
            ids, wanted = samples.tokens(number)
            end = x + len(ids) - 1
            inputs[y, x:end], targets[y, x:end], learned[y, x:end] = ids[:-1], ids[1:], wanted[1:]
            segments[y, x:end], positions[y, x:end] = segment, np.arange(end - x)
            tokens, x = tokens + end - x, end
    places = np.flatnonzero(learned)
    room = quarters(len(places), learned.size)
    return Batch(
        inputs=inputs,
        places=_filled(places, room, np.int32),
        targets=_filled(targets.reshape(-1)[places], room, np.int32),
        weights=_filled(np.ones(len(places)), room, np.float32),
        segments=segments if packed else None,
        positions=positions if packed else None,
        samples=tuple(number for row in rows for number in row),
        tokens=tokens,
        learned=len(places),
    )


def _counts(lengths: NDArray[np.int64]) -> dict[int, int]:
    """Return the number of samples of each length."""
    values, counts = np.unique(lengths, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _filled_rows(lengths: NDArray[np.int64], width: int) -> list[Row]:
    """Return packed rows of at most `width` tokens, each sample by its number in one of them."""
    waiting: dict[int, list[int]] = {}
    for number, length in enumerate(lengths.tolist()):
        waiting.setdefault(length, []).append(number)
    rows = packed_rows({length: len(numbers) for length, numbers in waiting.items()}, width)
    return [tuple(waiting[length].pop() for length in row) for row in rows]


def _all_padded(lengths: NDArray[np.int64], bucket: int) -> NDArray[np.int32]:
    """Return `padded` of each length."""
    table = [padded(length, bucket) for length in range(int(lengths.max(initial=0)) + 1)]
    return np.array(table, np.int32)[lengths]


def _filled(values: NDArray[Any], room: int, kind: type) -> NDArray[Any]:
    full: NDArray[Any] = np.zeros(room, kind)
    full[: len(values)] = values
    return full

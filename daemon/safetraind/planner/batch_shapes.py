"""The shapes that a run computes on, counted from the lengths of its samples alone.

Follows `worker.batches`: samples sorted by length, cut into windows and micro-batches, each padded
to a multiple of the bucket. With packing a row holds several samples, and nearly all rows are one
width.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache

from safetrain_shared.settings import LENGTH_BUCKET, TrainingSettings
from safetraind.planner.facts import Lengths
from safetraind.planner.memory_estimate import Step

NEARLY_ALL = 0.95  # of the samples fit into a packed row of the common width
QUARTERS = 4  # the predictions of a micro-batch are filled up to quarters of its tokens


def padded(length: int, bucket: int = LENGTH_BUCKET) -> int:
    """`length` rounded up as `worker.batches.padded` does it."""
    step = max(bucket, 1 << max(0, (max(length, 1) - 1).bit_length() - 4))
    return -(-max(length, 1) // step) * step


def heaviest_step(
    lengths: Lengths,
    settings: TrainingSettings,
    *,
    bucket: int = LENGTH_BUCKET,
    valid: Lengths | None = None,
) -> Step:
    """The micro-batch that needs most memory: the widest one, with as many predictions through the
    head as samples of that width can have. `valid`: where its samples are wider than those that are
    trained on, the widest batch of an evaluation belongs to the step.
    """
    rows, longest = settings.batch_size, settings.max_seq_length
    if settings.packing:
        width = _packed_widths(lengths.tokens, longest, bucket)[0][0]
        learned = rows * width  # full rows; how much of them counts, nobody knows beforehand
    else:
        width, learned = _widest(lengths, longest, rows, bucket)
    valid_width, valid_learned = _widest(valid, longest, rows, bucket) if valid else (0, 0)
    if valid_width <= width:
        valid_width = valid_learned = 0
    return Step(rows, width, learned, valid_width, valid_learned)


def _widest(lengths: Lengths, max_seq_length: int, rows: int, bucket: int) -> tuple[int, int]:
    """Width and predictions of the widest micro-batch of `rows` samples."""
    longest = max(1, min(lengths.longest, max_seq_length))
    width = padded(longest - 1, bucket)
    kept = [_kept(tokens, learned, max_seq_length) for tokens, learned in lengths.tops]
    widest = sorted((n for tokens, n in kept if padded(tokens - 1, bucket) == width), reverse=True)
    others = sorted((n for tokens, n in kept if padded(tokens - 1, bucket) < width), reverse=True)
    predictions = sum([*widest, *others, *[width] * rows][:rows])
    return width, quarters(predictions, rows * width)


def _kept(tokens: int, learned: int, length: int) -> tuple[int, int]:
    """A sample cut to `length`, taking the learned tokens to be its last ones."""
    return min(tokens, length), max(0, learned - max(0, tokens - length))


def quarters(count: int, whole: int) -> int:
    """As `worker.batches` rounds the number of predictions: to quarters of all tokens."""
    return in_quarters(max(1, -(-count // -(-whole // QUARTERS))), whole)


def in_quarters(number: int, whole: int) -> int:
    """So many quarters of `whole` tokens."""
    return min(whole, number * -(-whole // QUARTERS))


def padded_tokens(
    lengths: Lengths, settings: TrainingSettings, bucket: int = LENGTH_BUCKET
) -> tuple[int, int]:
    """Tokens with padding, and micro-batches, of one pass over the samples that were counted."""
    rows = settings.batch_size
    tokens = batches = filled = width = 0
    for width, count in _rows(lengths, settings, bucket):
        rest = min(count, -filled % rows)  # these join a micro-batch of a longer sample
        filled += count
        whole = -(-(count - rest) // rows)
        tokens += width * rows * whole
        batches += whole
    return tokens - width * (-filled % rows), batches  # the last one holds what is left


def counted_rows(lengths: Lengths, settings: TrainingSettings, bucket: int = LENGTH_BUCKET) -> int:
    """Rows of one pass over the samples that were counted: samples, or with packing full rows."""
    return sum(count for _, count in _rows(lengths, settings, bucket))


def _rows(lengths: Lengths, settings: TrainingSettings, bucket: int) -> Sequence[tuple[int, int]]:
    """Widths of rows with their number, the widest first."""
    if settings.packing:
        return _packed_widths(lengths.tokens, settings.max_seq_length, bucket)
    return _widths(lengths, settings.max_seq_length, bucket)


@lru_cache(maxsize=64)
def _packed_widths(
    tokens: tuple[tuple[int, int], ...], max_seq_length: int, bucket: int
) -> Sequence[tuple[int, int]]:
    """As `worker.batches` fills packed rows: always the longest sample that still fits."""
    waiting: dict[int, int] = {}
    for length, count in tokens:
        inputs = min(length, max_seq_length) - 1
        waiting[inputs] = waiting.get(inputs, 0) + count
    left, common = sorted(waiting), _packed_width(waiting, max_seq_length - 1, bucket)
    rows: dict[int, int] = {}
    while left:
        width = max(common, padded(left[-1], bucket))
        rows[width] = rows.get(width, 0) + 1
        room = max(common, left[-1])
        while (fitting := bisect_right(left, room)) > 0:
            length = left[fitting - 1]
            room -= length
            waiting[length] -= 1
            if not waiting[length]:
                left.remove(length)
    return sorted(rows.items(), reverse=True)


def _packed_width(lengths: Mapping[int, int], most: int, bucket: int) -> int:
    """As `worker.batches.packed_width`, of lengths with their number."""
    if not lengths:
        return padded(most, bucket)
    ordered = sorted(lengths)
    behind = list(itertools.accumulate(lengths[length] for length in ordered))
    places = (int(share * (behind[-1] - 1)) for share in (NEARLY_ALL, 0.5))
    nearly, half = (ordered[bisect_right(behind, place)] for place in places)
    return padded(min(max(nearly, 3 * half), most), bucket)


def compiled_shapes(
    lengths: Lengths,
    settings: TrainingSettings,
    bucket: int = LENGTH_BUCKET,
    valid: Lengths | None = None,
) -> int:
    """Upper bound of the shapes of a micro-batch (rows, width, predictions) that a run meets, those
    of its evaluations included. Each full width, and the last, smaller micro-batch of an epoch.
    """
    widths = len(_rows(lengths, settings, bucket))
    evaluated = len(_widths(valid, settings.max_seq_length, bucket)) if valid else 0
    last = settings.batch_size > 1
    return QUARTERS * (widths + last + (evaluated + last if evaluated else 0))


def _widths(lengths: Lengths, max_seq_length: int, bucket: int) -> list[tuple[int, int]]:
    """Padded widths with their number of samples, the widest first."""
    counts: dict[int, int] = {}
    for tokens, count in lengths.tokens:
        width = padded(min(tokens, max_seq_length) - 1, bucket)
        counts[width] = counts.get(width, 0) + count
    return sorted(counts.items(), reverse=True)
